{{/*
An object of the release's namespace as JSON; `{}` if it is missing, or if templates are rendered without a cluster. The chart asks the
cluster about secrets and stores only here, so that a test can replace this file. Takes (dict "root" $ "version" API "kind" KIND "name" NAME).
*/}}
{{- define "rowlock.live" -}}
{{- lookup .version .kind .root.Release.Namespace .name | toJson -}}
{{- end -}}
