{{/*
The generated Secrets, as JSON: a list of {block, component, name, on, given, existing, new}. `new` has a value for each key, and `given`
replaces that of the first one. `on`: pods of this release read it unless `existing` is set.
*/}}
{{- define "rowlock.keptSecrets" -}}
{{- $name := include "rowlock.fullname" . -}}
{{- $values := .Values -}}
{{- $kept := list (dict "block" "auth" "component" "auth" "name" (printf "%s-auth" $name) "on" true
  "given" $values.auth.tokenSecret "existing" $values.auth.existingSecret
  "key" $values.auth.secretKeys.tokenSecret "new" (dict $values.auth.secretKeys.tokenSecret (randAlphaNum 64))) -}}
{{- range $store := list "postgresql" "redis" "rabbitmq" -}}
{{- $own := index $values $store -}}
{{- $kept = append $kept (dict "block" (printf "%s.auth" $store) "component" $store "name" (printf "%s-%s" $name $store) "on" $own.enabled
  "given" $own.auth.password "existing" $own.auth.existingSecret
  "key" $own.auth.secretKeys.password "new" (dict $own.auth.secretKeys.password (randAlphaNum 32))) -}}
{{- end -}}
{{- $reader := $values.rabbitmq.reader -}}
{{- $kept = append $kept (dict "block" "rabbitmq.reader" "component" "rabbitmq" "name" (printf "%s-rabbitmq-reader" $name)
  "on" (and $values.rabbitmq.enabled $reader.enabled) "given" $reader.password "existing" $reader.existingSecret
  "key" $reader.secretKeys.password "new" (dict $reader.secretKeys.password (randAlphaNum 32))) -}}
{{- /* The account of `helm test`. Its address can't be guessed, so no customer can register it before it becomes a manager. */ -}}
{{- $kept = append $kept (dict "block" "smoke" "component" "smoke" "name" (printf "%s-smoke" $name) "on" $values.smoke.enabled
  "given" "" "existing" $values.smoke.existingSecret
  "key" "password" "new" (dict "email" (printf "smoke-%s@example.com" (randAlphaNum 20 | lower)) "password" (randAlphaNum 32))) -}}
{{- toJson $kept -}}
{{- end -}}

{{/*
Whether the release has one of these Secrets: `true` or nothing. A Secret that is in use, generated, or left from an earlier revision stays in
every revision, also if its part is off: Helm can't roll back to a revision with an object that was kept and then left out.
Takes (dict "root" $ "secret" ITEM "found" LIVE).
*/}}
{{- define "rowlock.hasSecret" -}}
{{- $values := .root.Values -}}
{{- $named := list -}}
{{- range list $values.auth $values.smoke $values.postgresql.auth $values.redis.auth $values.rabbitmq.auth $values.rabbitmq.reader $values.externalPostgresql $values.externalRedis $values.externalRabbitmq -}}
{{- $named = append $named .existingSecret -}}
{{- end -}}
{{- $used := and .secret.on (not .secret.existing) -}}
{{- $ours := eq .root.Release.Name (dig "metadata" "annotations" "meta.helm.sh/release-name" "" .found) -}}
{{- $made := and $values.secrets.generate (not .found) (not (has .secret.name $named)) -}}
{{- if or $used $ours $made }}true{{ end -}}
{{- end -}}

{{/*
The data of such a Secret: those in the cluster, the configured value of its key if it is in use, and a new value for each missing key. Takes the same.
*/}}
{{- define "rowlock.keptData" -}}
{{- $secret := .secret -}}
{{- $used := and $secret.on (not $secret.existing) -}}
{{- $data := deepCopy (default dict .found.data) -}}
{{- if and $secret.given $used -}}
{{- $_ := set $data $secret.key ($secret.given | b64enc) -}}
{{- end -}}
{{- if or $used (not .found) -}}
{{- range $key, $new := $secret.new -}}
{{- if not (index $data $key) }}{{ $_ := set $data $key ($new | b64enc) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}
