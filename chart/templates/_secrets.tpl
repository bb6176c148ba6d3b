{{/*
A value that must not change between upgrades, in base64: the configured one, otherwise the one in the cluster, otherwise a new one.
Takes (dict "root" $ "secret" NAME "key" KEY "given" VALUE "length" NUMBER), or "new" VALUE instead of the length.
*/}}
{{- define "rowlock.kept" -}}
{{- $found := dig "data" .key "" (lookup "v1" "Secret" .root.Release.Namespace .secret) -}}
{{- if .given -}}
{{- .given | b64enc -}}
{{- else if $found -}}
{{- $found -}}
{{- else -}}
{{- default (randAlphaNum (int (default 32 .length))) .new | b64enc -}}
{{- end -}}
{{- end -}}

{{/* A Secret with one password. Takes (dict "root" $ "component" NAME "name" FULL "key" KEY "given" VALUE "length" NUMBER). */}}
{{- define "rowlock.passwordSecret" -}}
apiVersion: v1
kind: Secret
metadata:
  {{- include "rowlock.metadata" . | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
data:
  {{ .key }}: {{ include "rowlock.kept" (dict "root" .root "secret" .name "key" .key "given" .given "length" .length) }}
{{- end -}}
