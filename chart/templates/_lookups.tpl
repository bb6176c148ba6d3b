{{/*
The Secrets that values name and the namespace lacks, one a line. Without a cluster nothing is known. Every namespace has the
ConfigMap kube-root-ca.crt, so its absence means that there is no cluster to ask.
*/}}
{{- define "rowlock.missingSecrets" -}}
{{- if lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt" }}
{{- range include "rowlock.namedSecrets" . | fromYamlArray }}
{{- $found := lookup "v1" "Secret" $.Release.Namespace .secret }}
{{- if not $found }}
{{ .secret }} ({{ .by }})
{{- else if and .key (not (hasKey ($found.data | default dict) .key)) }}
{{ .secret }} ({{ .by }}) has no key {{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secrets that values name, as a YAML list of {secret, key, by}. */}}
{{- define "rowlock.namedSecrets" -}}
{{- $named := list -}}
{{- range .Values.imagePullSecrets }}{{ $named = append $named (dict "secret" .name "key" ".dockerconfigjson" "by" "imagePullSecrets") }}{{ end -}}
{{- with .Values.auth }}{{ $named = append $named (dict "secret" .existingSecret "key" .secretKeys.tokenSecret "by" "auth.existingSecret") }}{{ end -}}
{{- if .Values.smoke.enabled -}}
{{- range list "email" "password" }}{{ $named = append $named (dict "secret" $.Values.smoke.existingSecret "key" . "by" "smoke.existingSecret") }}{{ end -}}
{{- end -}}
{{- range list "Postgresql" "Redis" "Rabbitmq" -}}
{{- $own := index $.Values (lower .) -}}
{{- if $own.enabled -}}
{{- $named = append $named (dict "secret" $own.auth.existingSecret "key" $own.auth.secretKeys.password "by" (printf "%s.auth.existingSecret" (lower .))) -}}
{{- else -}}
{{- $block := printf "external%s" . -}}
{{- $external := index $.Values $block -}}
{{- $named = append $named (dict "secret" $external.existingSecret "key" (default $external.secretKeys.password $external.secretKeys.url) "by" (printf "%s.existingSecret" $block)) -}}
{{- $named = append $named (dict "secret" $external.tls.caSecret "key" $external.tls.caKey "by" (printf "%s.tls.caSecret" $block)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.rabbitmq -}}
{{- if and .enabled .reader.enabled }}{{ $named = append $named (dict "secret" .reader.existingSecret "key" .reader.secretKeys.password "by" "rabbitmq.reader.existingSecret") }}{{ end -}}
{{- end -}}
{{- $given := list -}}
{{- range $named }}{{ if .secret }}{{ $given = append $given . }}{{ end }}{{ end -}}
{{- toYaml $given -}}
{{- end -}}
