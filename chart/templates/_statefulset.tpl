{{/* The two Services of a bundled store: one with a stable address, and the headless one that a StatefulSet needs. Takes (dict "root" $ "component" NAME "port" NUMBER). */}}
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
A bundled store's StatefulSet up to its containers. No store has a liveness probe: a restart does not help a slow or recovering
store, and Kubernetes restarts a store that has ended anyway.
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
  {{- /* Otherwise a pod that can't start, such as one with a wrong image, would not be replaced after the correction. Immutable. */}}
  podManagementPolicy: {{ dig "spec" "podManagementPolicy" "Parallel" (include "rowlock.liveStatefulSet" . | fromJson) }}
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
        # The store reads its configuration at start, so a change restarts the pod. The hash contains no secret.
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

{{/*
A store's volume claim. The template is immutable, so that of a running store stays: its labels never change, and the size counts for
new claims only. `rowlock.faultsOfVolume` compares the values with the claim.
*/}}
{{- define "rowlock.storeClaim" -}}
{{- $persistence := (index .root.Values .component).persistence -}}
{{- $running := include "rowlock.liveStatefulSet" . | fromJson -}}
{{- $claim := dict "storageClassName" $persistence.storageClass "resources" (dict "requests" (dict "storage" $persistence.size)) -}}
{{- with dig "spec" "volumeClaimTemplates" list $running -}}
{{- $claim = (first .).spec -}}
{{- end -}}
volumeClaimTemplates:
  - metadata:
      name: data
      labels:
        {{- include "rowlock.selectorLabels" . | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $claim.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ $claim.resources.requests.storage }}
{{- end -}}
