{{/* Prefix of the names of all objects, short enough for every suffix that a template adds. */}}
{{- define "rowlock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods. They never change: a Deployment's selector is immutable. Takes (dict "root" $ "component" NAME). */}}
{{- define "rowlock.selectorLabels" -}}
{{ include "rowlock.releaseLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "rowlock.releaseLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The recommended labels of an object. Pods get only the selector labels, so that a new chart version does not restart them. */}}
{{- define "rowlock.labels" -}}
{{ include "rowlock.selectorLabels" . }}
app.kubernetes.io/part-of: rowlock
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, namespace and labels of an object. Takes (dict "root" $ "component" NAME "name" FULL), name optional. */}}
{{- define "rowlock.metadata" -}}
name: {{ default (printf "%s-%s" (include "rowlock.fullname" .root) .component) .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "rowlock.labels" . | nindent 2 }}
{{- end -}}

{{/* The name of an image: a digest takes precedence over a tag. Takes an image's block. */}}
{{- define "rowlock.imageName" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{/* `image` and `imagePullPolicy` of Rowlock's containers. Takes (dict "root" $ "image" BLOCK): empty fields come from `image`. */}}
{{- define "rowlock.image" -}}
{{- $common := .root.Values.image -}}
{{- $image := dict
  "repository" (default $common.repository .image.repository)
  "tag" (default (default .root.Chart.AppVersion $common.tag) .image.tag)
  "digest" (ternary (default $common.digest .image.digest) .image.digest (empty .image.tag)) -}}
image: {{ include "rowlock.imageName" $image | quote }}
imagePullPolicy: {{ default $common.pullPolicy .image.pullPolicy }}
{{- end -}}

{{- define "rowlock.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rowlock.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Fields that all pods of the release share. */}}
{{- define "rowlock.podCommon" -}}
serviceAccountName: {{ include "rowlock.serviceAccountName" . }}
automountServiceAccountToken: false
# Otherwise a Service called rowlock would put a ROWLOCK_PORT of its own into the containers.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The absolute address of the runbooks: the configured one, otherwise that of this release in the repository of a published chart. */}}
{{- define "rowlock.runbookUrl" -}}
{{- if .Values.monitoring.prometheusRule.runbookUrl -}}
{{- .Values.monitoring.prometheusRule.runbookUrl -}}
{{- else if .Chart.Home -}}
{{- printf "%s/blob/v%s/docs/runbooks" (trimSuffix "/" .Chart.Home) .Chart.AppVersion -}}
{{- end -}}
{{- end -}}
