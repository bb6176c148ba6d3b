{{/* What the release's objects are called: short enough for each suffix that a template adds. */}}
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

{{/* The recommended labels of an object. Pods get the selecting ones alone, so that a new chart does not roll them for a label. */}}
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

{{/* One image's name: a digest wins over a tag. Takes an image's block. */}}
{{- define "rowlock.imageName" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{/* `image` and `imagePullPolicy` of our own containers. Takes (dict "root" $ "image" BLOCK): what the block leaves empty is the common one's. */}}
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

{{/* What every pod of the release has in common. */}}
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
