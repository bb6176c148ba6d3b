{{/* The two Services of a bundled store: one with an address that stays, one that its StatefulSet must name. Takes (dict "root" $ "component" NAME "port" NUMBER). */}}
{{- define "rowlock.storeServices" -}}
{{- $name := printf "%s-%s" (include "rowlock.fullname" .root) .component -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "rowlock.metadata" . | nindent 2 }}
spec:
  ports:
    - {name: {{ .component }}, port: {{ .port }}, targetPort: {{ .component }}}
  selector:
    {{- include "rowlock.selectorLabels" . | nindent 4 }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "rowlock.metadata" (dict "root" .root "component" .component "name" (printf "%s-headless" $name)) | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  ports:
    - {name: {{ .component }}, port: {{ .port }}, targetPort: {{ .component }}}
  selector:
    {{- include "rowlock.selectorLabels" . | nindent 4 }}
{{- end -}}

{{/*
A bundled store's StatefulSet up to its containers. No store has a liveness probe: one that is slow or still recovers is not
made better by a restart, and one that has ended is started anyway.
Takes (dict "root" $ "component" NAME "grace" SECONDS).
*/}}
{{- define "rowlock.storeHead" -}}
{{- $values := index .root.Values .component -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "rowlock.metadata" . | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ include "rowlock.fullname" .root }}-{{ .component }}-headless
  selector:
    matchLabels:
      {{- include "rowlock.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "rowlock.selectorLabels" . | nindent 8 }}
      {{- if ne .component "postgresql" }}
      annotations:
        # Another configuration counts from the next start on, so the pod is started anew. No secret is in it.
        checksum/config: {{ include (printf "rowlock.configOf.%s" .component) .root | sha256sum }}
      {{- end }}
    spec:
      {{- include "rowlock.podCommon" .root | nindent 6 }}
      terminationGracePeriodSeconds: {{ .grace }}
      securityContext:
        {{- toYaml $values.podSecurityContext | nindent 8 }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{/* A store's volume: a claim, or an emptyDir where nothing shall be kept. Its labels never change: the template is immutable. */}}
{{- define "rowlock.storeClaim" -}}
{{- $persistence := (index .root.Values .component).persistence -}}
volumeClaimTemplates:
  - metadata:
      name: data
      labels:
        {{- include "rowlock.selectorLabels" . | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ $persistence.size }}
{{- end -}}
