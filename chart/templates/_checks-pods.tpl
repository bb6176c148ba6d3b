{{/*
Checks of what the API server would refuse in a pod, or accept with another meaning. An upgrade that the server refuses halfway has
changed other objects already.
*/}}
{{- define "rowlock.faultsOfPods" -}}
{{- range $block := list "api" "expirer" "migrations" "smoke" "postgresql" "redis" "rabbitmq" }}
{{- $resources := dig "resources" dict (index $.Values $block | default dict) }}
{{- range $name, $request := $resources.requests }}
{{- $limit := dig "limits" $name "" $resources }}
{{- if and $limit (gt (include "rowlock.amount" $request | float64) (include "rowlock.amount" $limit | float64)) }}
{{ $block }}.resources.requests.{{ $name }} ({{ include "rowlock.text" $request }}) is more than its limit ({{ include "rowlock.text" $limit }})
{{- end }}
{{- end }}
{{- end }}
{{- range $name := list "api" "expirer" }}
{{- $component := index $.Values $name }}
{{- $arguments := dict "root" $ "component" $name }}
{{- $volumes := include "rowlock.volumes" $arguments | fromYamlArray }}
{{- $mounts := include "rowlock.mounts" $arguments | fromYamlArray }}
{{- with include "rowlock.doubled" (dict "items" $volumes "key" "name") }}
{{ $name }}.extraVolumes has a name that is used already: {{ . }}
{{- end }}
{{- with include "rowlock.doubled" (dict "items" $mounts "key" "mountPath") }}
{{ $name }}.extraVolumeMounts has a path that is used already: {{ . }}
{{- end }}
{{- $known := dict }}
{{- range $volumes }}{{ $_ := set $known .name true }}{{ end }}
{{- range $mounts }}
{{- if not (hasKey $known .name) }}
{{ $name }}.extraVolumeMounts mounts {{ .name }}, which is not in {{ $name }}.extraVolumes
{{- end }}
{{- end }}
{{- with include "rowlock.doubled" (dict "items" (include "rowlock.variables" $arguments | fromYamlArray) "key" "name") }}
{{ $name }}.env has a variable that is set already: {{ . }}
{{- end }}
{{- $containers := tpl (concat $component.extraInitContainers $component.extraContainers | toYaml) $ | fromYamlArray }}
{{- with include "rowlock.doubled" (dict "items" (concat (list (dict "name" $name) (dict "name" "schema") (dict "name" "migrate")) $containers) "key" "name") }}
{{ $name }}.extraContainers or extraInitContainers has a name that is used already: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The values of a key that several maps of a list share. Takes (dict "items" LIST "key" KEY). */}}
{{- define "rowlock.doubled" -}}
{{- $seen := dict -}}
{{- $doubled := list -}}
{{- range .items -}}
{{- $value := index . $.key | trimSuffix "/" -}}
{{- if hasKey $seen $value }}{{ $doubled = append $doubled $value }}{{ end -}}
{{- $_ := set $seen $value true -}}
{{- end -}}
{{- uniq $doubled | join ", " -}}
{{- end -}}
