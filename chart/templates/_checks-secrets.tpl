{{/* Checks of the generated Secrets in the cluster: a renamed key would make a new password beside the one in use. */}}
{{- define "rowlock.faultsOfKeys" -}}
{{- $name := include "rowlock.fullname" . }}
{{- $blocks := dict "auth" (dict "secret" (printf "%s-auth" $name) "key" "tokenSecret" "values" .Values.auth) }}
{{- range list "postgresql" "redis" "rabbitmq" }}
{{- $own := index $.Values . }}
{{- if $own.enabled }}{{ $_ := set $blocks (printf "%s.auth" .) (dict "secret" (printf "%s-%s" $name .) "key" "password" "values" $own.auth) }}{{ end }}
{{- end }}
{{- with .Values.rabbitmq }}
{{- if and .enabled .reader.enabled }}{{ $_ := set $blocks "rabbitmq.reader" (dict "secret" (printf "%s-rabbitmq-reader" $name) "key" "password" "values" .reader) }}{{ end }}
{{- end }}
{{- range $path, $block := $blocks }}
{{- $wanted := index $block.values.secretKeys $block.key }}
{{- $data := dig "data" dict (lookup "v1" "Secret" $.Release.Namespace $block.secret) }}
{{- if and $data (not (hasKey $data $wanted)) (not $block.values.existingSecret) (not (get $block.values $block.key)) }}
{{ $path }}.secretKeys.{{ $block.key }} is {{ $wanted }}, but the Secret {{ $block.secret }} of this release has {{ keys $data | sortAlpha | join ", " }}: a new value would be generated. Use that key
{{- end }}
{{- end }}
{{- end -}}
