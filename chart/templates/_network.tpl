{{/* Peers of a NetworkPolicy: components of this release. Takes (dict "root" $ "components" LIST). */}}
{{- define "rowlock.peers" -}}
{{- $root := .root -}}
{{- range .components }}
- podSelector:
    matchLabels:
      {{- include "rowlock.selectorLabels" (dict "root" $root "component" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* The head of a policy for one component. Takes (dict "root" $ "component" NAME "types" LIST). */}}
{{- define "rowlock.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "rowlock.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "rowlock.selectorLabels" . | nindent 6 }}
  policyTypes: {{ toJson .types }}
{{- end -}}

{{/* Egress to one store, bundled or external. Takes (dict "root" $ "store" NAME). */}}
{{- define "rowlock.egressToStore" -}}
{{- $store := include (printf "rowlock.%s" .store) .root | fromYaml -}}
{{- $outside := index .root.Values.networkPolicy.externalPeers .store -}}
- ports:
    - {port: {{ $store.port }}, protocol: TCP}
  {{- with $store.sentinelPort }}
    - {port: {{ . }}, protocol: TCP}
  {{- end }}
  {{- if (index .root.Values .store).enabled }}
  to:
    {{- include "rowlock.peers" (dict "root" .root "components" (list .store)) | trim | nindent 4 }}
  {{- else if $outside }}
  to:
    {{- toYaml $outside | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Ingress to the metrics port. Takes (dict "root" $ "port" NUMBER). */}}
{{- define "rowlock.metricsIngress" -}}
{{- with .root.Values.metrics.from }}
- ports:
    - {port: metrics, protocol: TCP}
  from:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}
