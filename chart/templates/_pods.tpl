{{/*
Parts of the pods that run Rowlock's image: the API, the expirer, the migrations and the smoke test.
*/}}

{{/* All settings of the service that the chart sets, and `env`. Takes (dict "root" $ "component" NAME); all but the expirer use `api`. */}}
{{- define "rowlock.variables" -}}
{{- $values := .root.Values -}}
{{- $component := ternary $values.api $values.expirer (ne .component "expirer") -}}
{{ include "rowlock.secretVariable" (dict "name" "ROWLOCK_TOKEN_SECRET" "secret" (include "rowlock.tokenSecretName" .root) "key" $values.auth.secretKeys.tokenSecret) }}
{{- include "rowlock.storeVariables" .root }}
- name: ROWLOCK_POOL_SIZE
  value: {{ $component.poolSize | quote }}
- name: ROWLOCK_SHUTDOWN_SECONDS
  value: {{ $component.shutdownSeconds | quote }}
{{- if $values.api.trustedProxies }}
- name: ROWLOCK_TRUSTED_PROXIES
  value: {{ join "," $values.api.trustedProxies | quote }}
{{- end }}
{{- $config := include "rowlock.config" .root | fromYaml }}
{{- range $component.env }}{{ $config = omit $config .name }}{{ end }}
{{- range $name, $value := $config }}
- name: {{ $name }}
  value: {{ include "rowlock.text" $value | quote }}
{{- end }}
{{- with $component.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
`config`. If requests come through a proxy that is not in api.trustedProxies, it switches the rate limits per address off, because
all customers would share one address. The number is the largest that the settings accept.
*/}}
{{- define "rowlock.config" -}}
{{- $config := dict -}}
{{- if include "rowlock.proxiesUnnamed" . -}}
{{- $config = dict "ROWLOCK_ADDRESS_REQUESTS_PER_MINUTE" 1000000 "ROWLOCK_ADDRESS_SIGN_INS_PER_MINUTE" 1000000 -}}
{{- end -}}
{{- toYaml (merge (deepCopy .Values.config) $config) -}}
{{- end -}}

{{/* A value as the text of a variable. Helm reads whole numbers as floats and would write 1e+06. */}}
{{- define "rowlock.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "rowlock.proxiesUnnamed" -}}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled) (empty .Values.api.trustedProxies) }}true{{ end -}}
{{- end -}}

{{- define "rowlock.tokenSecretName" -}}
{{- default (printf "%s-auth" (include "rowlock.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{/* Volume mounts of Rowlock's containers. Takes the same. */}}
{{- define "rowlock.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- range include "rowlock.authorities" .root | fromJsonArray }}
- name: {{ .store }}-ca
  mountPath: {{ include "rowlock.caFile" .store | dir }}
  readOnly: true
{{- end }}
{{- with (ternary .root.Values.expirer .root.Values.api (eq .component "expirer")).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes of these pods. Takes the same. */}}
{{- define "rowlock.volumes" -}}
- name: tmp
  emptyDir: {}
{{- range include "rowlock.authorities" .root | fromJsonArray }}
- name: {{ .store }}-ca
  secret:
    secretName: {{ .secret }}
    items:
      - key: {{ .key | quote }}
        path: ca.crt
{{- end }}
{{- with (ternary .root.Values.expirer .root.Values.api (eq .component "expirer")).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Scheduling of a pod. Takes the values of a component. */}}
{{- define "rowlock.placement" -}}
{{- range $key := list "priorityClassName" "nodeSelector" }}
{{- with index $ $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
tolerations:
  {{- with .tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- range list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" }}
  - {key: {{ . }}, operator: Exists, effect: NoExecute, tolerationSeconds: {{ $.lostNodeSeconds }}}
  {{- end }}
{{- end -}}

{{/* An init container that waits until the schema is migrated. Takes (dict "root" $ "component" NAME). */}}
{{- define "rowlock.schemaWait" -}}
{{- $component := index .root.Values .component -}}
- name: schema
  {{- include "rowlock.image" (dict "root" .root "image" $component.image) | nindent 2 }}
  command: [python, -m, service.migrate, --wait, "300"]
  env:
    {{- include "rowlock.variables" . | nindent 4 }}
  resources:
    {{- toYaml $component.resources | nindent 4 }}
  securityContext:
    {{- toYaml $component.securityContext | nindent 4 }}
  volumeMounts:
    {{- include "rowlock.mounts" . | nindent 4 }}
{{- end -}}

{{/* The probes of a component: paths are fixed, timing comes from the values. Takes (dict "root" $ "component" BLOCK "port" NAME "ready" PATH). */}}
{{- define "rowlock.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  {{- include "rowlock.timing" (dict "root" .root "probe" .component.probes.startup) | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  {{- include "rowlock.timing" (dict "root" .root "probe" .component.probes.liveness) | nindent 2 }}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: {{ .port }}}
  {{- include "rowlock.timing" (dict "root" .root "probe" .component.probes.readiness) | nindent 2 }}
{{- end -}}

{{/* Numbers of a probe, which may be template code. Takes (dict "root" $ "probe" MAP). */}}
{{- define "rowlock.timing" -}}
{{- range $key, $value := .probe }}
{{ $key }}: {{ tpl (include "rowlock.text" $value) $.root | int }}
{{- end }}
{{- end -}}

{{/* A Deployment. Takes (dict "root" $ "component" NAME "command" LIST "port" NUMBER "portName" NAME "metricsPort" NUMBER "ready" PATH). */}}
{{- define "rowlock.deployment" -}}
{{- $component := index .root.Values .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "rowlock.metadata" (dict "root" .root "component" .component) | nindent 2 }}
spec:
  {{- if not (or $component.autoscaling.enabled $component.keda.enabled) }}
  replicas: {{ $component.replicas }}
  {{- else }}
  {{- /* Keeps the current number: without it, switching on autoscaling would reset the Deployment to one pod. */}}
  {{- $name := printf "%s-%s" (include "rowlock.fullname" .root) .component }}
  {{- with lookup "apps/v1" "Deployment" .root.Release.Namespace $name }}
  replicas: {{ .spec.replicas }}
  {{- end }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "rowlock.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "rowlock.selectorLabels" . | nindent 8 }}
        {{- with $component.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $component.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "rowlock.podCommon" .root | nindent 6 }}
      securityContext:
        {{- toYaml $component.podSecurityContext | nindent 8 }}
      terminationGracePeriodSeconds: {{ $component.terminationGracePeriodSeconds }}
      initContainers:
        {{- include "rowlock.schemaWait" . | nindent 8 }}
        {{- with $component.extraInitContainers }}
        {{- tpl (toYaml .) $.root | nindent 8 }}
        {{- end }}
      containers:
        - name: {{ .component }}
          {{- include "rowlock.image" (dict "root" .root "image" $component.image) | nindent 10 }}
          command: {{ toJson .command }}
          env:
            {{- include "rowlock.variables" . | nindent 12 }}
          ports:
            - {name: {{ .portName }}, containerPort: {{ .port }}}
            - {name: metrics, containerPort: {{ .metricsPort }}}
          {{- include "rowlock.probes" (dict "root" .root "component" $component "port" .portName "ready" .ready) | nindent 10 }}
          {{- if $component.preStopSeconds }}
          # Requests that arrive while the Service removes the pod are still served.
          lifecycle:
            preStop:
              sleep:
                seconds: {{ $component.preStopSeconds }}
          {{- end }}
          resources:
            {{- toYaml $component.resources | nindent 12 }}
          securityContext:
            {{- toYaml $component.securityContext | nindent 12 }}
          volumeMounts:
            {{- include "rowlock.mounts" . | nindent 12 }}
        {{- with $component.extraContainers }}
        {{- tpl (toYaml .) $.root | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "rowlock.volumes" . | nindent 8 }}
      {{- include "rowlock.placement" $component | nindent 6 }}
      affinity:
        {{- include "rowlock.affinity" . | nindent 8 }}
      topologySpreadConstraints:
        {{- include "rowlock.spread" . | nindent 8 }}
{{- end -}}

{{/*
The configured constraints; without any, pods spread over nodes where possible. A second soft constraint for zones would switch off
both on nodes without the zone's label: the scheduler scores only nodes that have all keys.
*/}}
{{- define "rowlock.spread" -}}
{{- $given := (index .root.Values .component).topologySpreadConstraints -}}
{{- if $given -}}
{{ tpl (toYaml $given) .root }}
{{- else -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  # Counts only pods of the same revision: otherwise old pods would affect the placement of new ones during a rollout.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "rowlock.selectorLabels" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* The configured affinity; without any, pods prefer a zone that has none of the same revision. */}}
{{- define "rowlock.affinity" -}}
{{- $given := (index .root.Values .component).affinity -}}
{{- if $given -}}
{{ tpl (toYaml $given) .root }}
{{- else -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: topology.kubernetes.io/zone
        matchLabelKeys: [pod-template-hash]
        labelSelector:
          matchLabels:
            {{- include "rowlock.selectorLabels" . | nindent 12 }}
{{- end -}}
{{- end -}}
