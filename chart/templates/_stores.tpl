{{/*
The connection to each store, bundled or external, as YAML: host (RabbitMQ: hosts), port, user, the Secret with the password, and its keys.
`urlKey` names the key with a whole URL; then only the ports are used besides it.
*/}}
{{- define "rowlock.postgresql" -}}
{{- $name := include "rowlock.fullname" . -}}
{{- if .Values.postgresql.enabled -}}
{{- $own := .Values.postgresql -}}
host: {{ $name }}-postgresql
port: 5432
username: {{ $own.auth.username }}
database: {{ $own.auth.database }}
secret: {{ default (printf "%s-postgresql" $name) $own.auth.existingSecret }}
passwordKey: {{ $own.auth.secretKeys.password }}
maxConnections: {{ $own.maxConnections }}
tls: disable
{{- else -}}
{{- $external := .Values.externalPostgresql -}}
host: {{ $external.host | quote }}
port: {{ $external.port }}
username: {{ $external.username }}
database: {{ $external.database }}
secret: {{ default (printf "%s-external-postgresql" $name) $external.existingSecret }}
passwordKey: {{ $external.secretKeys.password }}
urlKey: {{ $external.secretKeys.url | quote }}
maxConnections: {{ $external.maxConnections }}
tls: {{ $external.tls.mode }}
{{- end -}}
{{- end -}}

{{- define "rowlock.redis" -}}
{{- $name := include "rowlock.fullname" . -}}
{{- if .Values.redis.enabled -}}
{{- $own := .Values.redis -}}
host: {{ $name }}-redis
port: 6379
database: 0
scheme: redis
secret: {{ default (printf "%s-redis" $name) $own.auth.existingSecret }}
passwordKey: {{ $own.auth.secretKeys.password }}
{{- else -}}
{{- $external := .Values.externalRedis -}}
host: {{ $external.host | quote }}
port: {{ $external.port }}
username: {{ $external.username | quote }}
database: {{ $external.database }}
sentinelPort: {{ $external.sentinelPort }}
scheme: {{ ternary "rediss" "redis" $external.tls.enabled }}
{{- if or $external.password $external.existingSecret }}
secret: {{ default (printf "%s-external-redis" $name) $external.existingSecret }}
passwordKey: {{ $external.secretKeys.password }}
urlKey: {{ $external.secretKeys.url | quote }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "rowlock.rabbitmq" -}}
{{- $name := include "rowlock.fullname" . -}}
{{- if .Values.rabbitmq.enabled -}}
{{- $own := .Values.rabbitmq -}}
hosts: [{{ $name }}-rabbitmq]
port: 5672
username: {{ $own.auth.username }}
vhost: rowlock
scheme: amqp
secret: {{ default (printf "%s-rabbitmq" $name) $own.auth.existingSecret }}
passwordKey: {{ $own.auth.secretKeys.password }}
{{- else -}}
{{- $external := .Values.externalRabbitmq -}}
hosts: {{ default (list $external.host) $external.hosts | toJson }}
port: {{ $external.port }}
username: {{ $external.username }}
vhost: {{ $external.vhost | quote }}
scheme: {{ ternary "amqps" "amqp" $external.tls.enabled }}
secret: {{ default (printf "%s-external-rabbitmq" $name) $external.existingSecret }}
passwordKey: {{ $external.secretKeys.password }}
urlKey: {{ $external.secretKeys.url | quote }}
{{- end -}}
{{- end -}}

{{/* A variable with its value from a Secret. Takes (dict "name" VARIABLE "secret" NAME "key" KEY). */}}
{{- define "rowlock.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key | quote }}
{{- end -}}

{{/* The path of a CA's certificate in the containers. Takes a store's name. */}}
{{- define "rowlock.caFile" -}}/etc/rowlock/{{ . }}/ca.crt{{- end -}}

{{/*
The variables with the stores' addresses. PostgreSQL's driver reads the password from PGPASSWORD, so it may have any characters.
The URLs of the other two contain the password, so it must not need escaping in a URL.
*/}}
{{- define "rowlock.storeVariables" -}}
{{- $postgresql := include "rowlock.postgresql" . | fromYaml -}}
{{- $redis := include "rowlock.redis" . | fromYaml -}}
{{- $rabbitmq := include "rowlock.rabbitmq" . | fromYaml -}}
{{- if $postgresql.urlKey }}
{{ include "rowlock.secretVariable" (dict "name" "ROWLOCK_DATABASE_URL" "secret" $postgresql.secret "key" $postgresql.urlKey) }}
{{- else }}
{{- $authority := ternary (printf "&sslrootcert=%s" (include "rowlock.caFile" "postgresql")) "" (and (not .Values.postgresql.enabled) (not (empty .Values.externalPostgresql.tls.caSecret))) }}
{{ include "rowlock.secretVariable" (dict "name" "PGPASSWORD" "secret" $postgresql.secret "key" $postgresql.passwordKey) }}
- name: ROWLOCK_DATABASE_URL
  value: {{ printf "postgresql://%s@%s:%v/%s?sslmode=%s%s" $postgresql.username $postgresql.host $postgresql.port $postgresql.database $postgresql.tls $authority | quote }}
{{- end }}
{{- if $redis.urlKey }}
{{ include "rowlock.secretVariable" (dict "name" "ROWLOCK_REDIS_URL" "secret" $redis.secret "key" $redis.urlKey) }}
{{- else }}
{{- $authority := ternary (printf "?ssl_ca_certs=%s" (include "rowlock.caFile" "redis")) "" (and (not .Values.redis.enabled) (not (empty .Values.externalRedis.tls.caSecret))) }}
{{- $account := "" }}
{{- if $redis.secret }}
{{- $account = printf "%s:$(REDIS_PASSWORD)@" (default "" $redis.username) }}
{{ include "rowlock.secretVariable" (dict "name" "REDIS_PASSWORD" "secret" $redis.secret "key" $redis.passwordKey) }}
{{- end }}
- name: ROWLOCK_REDIS_URL
  value: {{ printf "%s://%s%s:%v/%v%s" $redis.scheme $account $redis.host $redis.port $redis.database $authority | quote }}
{{- end }}
{{- if $rabbitmq.urlKey }}
{{ include "rowlock.secretVariable" (dict "name" "ROWLOCK_BROKER_URL" "secret" $rabbitmq.secret "key" $rabbitmq.urlKey) }}
{{- else }}
{{ include "rowlock.secretVariable" (dict "name" "RABBITMQ_PASSWORD" "secret" $rabbitmq.secret "key" $rabbitmq.passwordKey) }}
{{- $urls := list }}
{{- range $rabbitmq.hosts }}
{{- $urls = append $urls (printf "%s://%s:$(RABBITMQ_PASSWORD)@%s:%v/%s" $rabbitmq.scheme $rabbitmq.username . $rabbitmq.port $rabbitmq.vhost) }}
{{- end }}
- name: ROWLOCK_BROKER_URL
  value: {{ join ";" $urls | quote }}
{{- end }}
{{- if and (not .Values.rabbitmq.enabled) .Values.externalRabbitmq.tls.caSecret }}
# The broker's driver has no setting for a CA. OpenSSL reads the CAs that it trusts by default from here.
- name: SSL_CERT_FILE
  value: {{ include "rowlock.caFile" "rabbitmq" }}
{{- end }}
{{- end -}}

{{/* The external stores' CAs, as JSON: a list of {store, secret, key}. */}}
{{- define "rowlock.authorities" -}}
{{- $authorities := list -}}
{{- range $store, $values := dict "postgresql" .Values.externalPostgresql "rabbitmq" .Values.externalRabbitmq "redis" .Values.externalRedis -}}
{{- if and $values.tls.caSecret (not (index $.Values $store).enabled) -}}
{{- $authorities = append $authorities (dict "store" $store "secret" $values.tls.caSecret "key" $values.tls.caKey) -}}
{{- end -}}
{{- end -}}
{{- toJson $authorities -}}
{{- end -}}
