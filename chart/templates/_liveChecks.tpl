{{/*
Checks against the objects in the cluster: they refuse values that would lose data or passwords, or that Kubernetes would refuse after other
objects have changed. Without a cluster they find nothing.
*/}}
{{- define "rowlock.faultsOfLive" -}}
{{- include "rowlock.faultsOfPasswords" . -}}
{{- include "rowlock.faultsOfDataLeft" . -}}
{{- range $store := list "postgresql" "rabbitmq" }}
{{- if (index $.Values $store).enabled }}
{{- include "rowlock.faultsOfVolume" (dict "root" $ "component" $store) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Running pods, and the bundled PostgreSQL's volume, have the password that is in the Secret. */}}
{{- define "rowlock.faultsOfPasswords" -}}
{{- range $secret := include "rowlock.keptSecrets" . | fromJsonArray }}
{{- if and $secret.on $secret.given (not $secret.existing) }}
{{- $found := include "rowlock.live" (dict "root" $ "version" "v1" "kind" "Secret" "name" $secret.name) | fromJson }}
{{- $kept := dig "data" $secret.key "" $found | b64dec }}
{{- if and $kept (ne $kept $secret.given) }}
{{ $secret.block }}.{{ ternary "tokenSecret" "password" (eq $secret.block "auth") }} is not the one in the Secret {{ $secret.name }}, which is in use: change it there first (docs/deploy/mistakes.md), or leave it out
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The claim or the StatefulSet of a bundled store, as JSON. Takes (dict "root" $ "component" NAME). */}}
{{- define "rowlock.liveClaim" -}}
{{- $name := printf "data-%s-%s-0" (include "rowlock.fullname" .root) .component -}}
{{- include "rowlock.live" (dict "root" .root "version" "v1" "kind" "PersistentVolumeClaim" "name" $name) -}}
{{- end -}}
{{- define "rowlock.liveStatefulSet" -}}
{{- $name := printf "%s-%s" (include "rowlock.fullname" .root) .component -}}
{{- include "rowlock.live" (dict "root" .root "version" "apps/v1" "kind" "StatefulSet" "name" $name) -}}
{{- end -}}

{{- define "rowlock.faultsOfDataLeft" -}}
{{- if not (or .Values.postgresql.enabled .Values.postgresql.dataStayBehind) }}
{{- $labels := dict "root" . "component" "postgresql" }}
{{- $claim := include "rowlock.liveClaim" $labels | fromJson }}
{{- $running := include "rowlock.liveStatefulSet" $labels | fromJson }}
{{- if or $claim $running }}
postgresql.enabled is false, but the bundled PostgreSQL has data ({{ with $claim }}claim {{ .metadata.name }}{{ else }}StatefulSet {{ $running.metadata.name }}, without a volume{{ end }}), which the service would no longer see: move them (docs/deploy/mistakes.md), then set postgresql.dataStayBehind to true
{{- end }}
{{- end }}
{{- end -}}

{{/* Kubernetes expands a claim, but changes neither its class nor a StatefulSet's template of it. Takes (dict "root" $ "component" NAME). */}}
{{- define "rowlock.faultsOfVolume" -}}
{{- $values := (index .root.Values .component).persistence }}
{{- $block := printf "%s.persistence" .component }}
{{- $running := include "rowlock.liveStatefulSet" . | fromJson }}
{{- if and $running (ne $values.enabled (not (empty $running.spec.volumeClaimTemplates))) }}
{{ $block }}.enabled can't change while the StatefulSet {{ $running.metadata.name }} exists: set it back to {{ not $values.enabled }}, or see docs/deploy/mistakes.md
{{- else if $values.enabled }}
{{- with include "rowlock.liveClaim" . | fromJson }}
{{- $size := .spec.resources.requests.storage }}
{{- $wanted := include "rowlock.bytes" $values.size | int64 }}
{{- $asked := include "rowlock.bytes" $size | int64 }}
{{- if gt $wanted $asked }}
{{ $block }}.size is {{ $values.size }}, but the claim {{ .metadata.name }} asks for {{ $size }}: expand the claim first, then upgrade (docs/deploy/mistakes.md)
{{- else if lt $wanted $asked }}
{{ $block }}.size is {{ $values.size }}, but the claim {{ .metadata.name }} asks for {{ $size }}, and volumes can't shrink: set it to {{ $size }}
{{- end }}
{{- $class := default "" .spec.storageClassName }}
{{- if and $values.storageClass (ne $values.storageClass $class) }}
{{ $block }}.storageClass is {{ $values.storageClass }}, but the claim {{ .metadata.name }} has {{ $class | default "none" }}, which can't change: set it back, or see docs/deploy/mistakes.md
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A size such as 8Gi in bytes. The API server writes 8192Mi as 8Gi, so texts can't be compared. */}}
{{- define "rowlock.bytes" -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- $thousands := ternary 1024.0 1000.0 (hasSuffix "i" $unit) -}}
{{- $bytes := trimSuffix $unit . | float64 -}}
{{- $power := get (dict "k" 1 "m" 2 "g" 3 "t" 4 "p" 5 "e" 6) (trimSuffix "i" $unit | lower) | default 0 | int -}}
{{- range until $power }}{{ $bytes = mulf $bytes $thousands }}{{ end -}}
{{- printf "%.0f" $bytes -}}
{{- end -}}
