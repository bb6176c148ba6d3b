{{/*
Checks that the schema can't express, because they concern several values. Each fault is one line; all of them are reported at once.
*/}}
{{- define "rowlock.faults" -}}
{{- include "rowlock.faultsOfDoors" . -}}
{{- include "rowlock.faultsOfComponents" . -}}
{{- include "rowlock.faultsOfPods" . -}}
{{- include "rowlock.faultsOfStores" . -}}
{{- include "rowlock.faultsOfSecrets" . -}}
{{- include "rowlock.faultsOfKeys" . -}}
{{- include "rowlock.faultsOfConnections" . -}}
{{- include "rowlock.faultsOfLive" . -}}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.monitoring.podMonitor.enabled }}
monitoring.serviceMonitor and monitoring.podMonitor are both enabled, so every pod would be scraped twice: choose one
{{- end }}
{{- end -}}

{{- define "rowlock.faultsOfDoors" -}}
{{- if and .Values.ingress.enabled .Values.httpRoute.enabled }}
ingress and httpRoute are both enabled: choose one
{{- end }}
{{- if and .Values.ingress.enabled (empty .Values.ingress.hosts) }}
ingress.hosts is empty: name at least one host
{{- end }}
{{- if and .Values.httpRoute.enabled (empty .Values.httpRoute.parentRefs) }}
httpRoute.parentRefs is empty: name the Gateway
{{- end }}
{{- if and .Values.service.nodePort (eq .Values.service.type "ClusterIP") }}
service.nodePort is set, but service.type is ClusterIP: make it NodePort or LoadBalancer
{{- end }}
{{- if and .Values.service.externalTrafficPolicy (eq .Values.service.type "ClusterIP") }}
service.externalTrafficPolicy is set, but service.type is ClusterIP: make it NodePort or LoadBalancer
{{- end }}
{{- end -}}

{{- define "rowlock.faultsOfComponents" -}}
{{- range $name := list "api" "expirer" }}
{{- $component := index $.Values $name }}
{{- $scaling := $component.autoscaling }}
{{- $keda := $component.keda }}
{{- if and $scaling.enabled $keda.enabled }}
{{ $name }}.autoscaling and {{ $name }}.keda are both enabled: choose one
{{- end }}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{ $name }}.autoscaling.minReplicas ({{ $scaling.minReplicas }}) is more than maxReplicas ({{ $scaling.maxReplicas }})
{{- end }}
{{- if and $scaling.enabled (not $scaling.targetCpuPercent) (empty $scaling.metrics) }}
{{ $name }}.autoscaling is enabled without a metric to scale by: set targetCpuPercent or metrics
{{- end }}
{{- if and $scaling.enabled $scaling.targetCpuPercent (not (dig "requests" "cpu" "" $component.resources)) }}
{{ $name }}.autoscaling.targetCpuPercent is a share of the requested CPU, but {{ $name }}.resources.requests.cpu is not set
{{- end }}
{{- if and $keda.enabled (gt (int $keda.minReplicas) (int $keda.maxReplicas)) }}
{{ $name }}.keda.minReplicas ({{ $keda.minReplicas }}) is more than maxReplicas ({{ $keda.maxReplicas }})
{{- end }}
{{- if and $keda.enabled (empty $keda.triggers) }}
{{- if eq $name "api" }}
api.keda is enabled without a metric to scale by: set triggers
{{- else if and (not $.Values.postgresql.enabled) $.Values.externalPostgresql.secretKeys.url }}
expirer.keda needs triggers if PostgreSQL's address is a URL in a Secret, because KEDA can't parse it: set triggers
{{- end }}
{{- end }}
{{- $needed := add $component.preStopSeconds $component.shutdownSeconds 10 }}
{{- if le (int $component.terminationGracePeriodSeconds) (int $needed) }}
{{ $name }}.terminationGracePeriodSeconds ({{ $component.terminationGracePeriodSeconds }}) must be more than {{ $needed }}: preStopSeconds ({{ $component.preStopSeconds }}), shutdownSeconds ({{ $component.shutdownSeconds }}) and 10 for the rest of the shutdown
{{- end }}
{{- end }}
{{- end -}}

{{- define "rowlock.faultsOfStores" -}}
{{- range $store, $external := dict "Postgresql" .Values.externalPostgresql "Rabbitmq" .Values.externalRabbitmq "Redis" .Values.externalRedis }}
{{- $own := index $.Values (lower $store) }}
{{- $block := printf "external%s" $store }}
{{- $hosts := or $external.host $external.hosts }}
{{- if $own.enabled }}
{{- if or $hosts $external.password $external.existingSecret $external.secretKeys.url }}
{{ $block }} is set but not used: set {{ lower $store }}.enabled to false
{{- end }}
{{- else }}
{{- if not (or $hosts $external.secretKeys.url) }}
{{ lower $store }}.enabled is false, and no external server is configured: set {{ $block }}.host
{{- end }}
{{- if and $external.secretKeys.url (not $external.existingSecret) }}
{{ $block }}.secretKeys.url names a key, but {{ $block }}.existingSecret is empty
{{- end }}
{{- if and (ne $store "Redis") (not $external.password) (not $external.existingSecret) }}
{{ $block }} has neither a password nor an existingSecret
{{- end }}
{{- if and (ne $store "Postgresql") $external.password (not (regexMatch "^[A-Za-z0-9._~-]+$" $external.password)) }}
{{ $block }}.password has characters that must be escaped in a URL: put the whole URL into a Secret, and set existingSecret and secretKeys.url
{{- end }}
{{- if and $external.tls.caSecret (ne $store "Postgresql") (not $external.tls.enabled) }}
{{ $block }}.tls.caSecret is set, but {{ $block }}.tls.enabled is false
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.externalRabbitmq.host .Values.externalRabbitmq.hosts }}
externalRabbitmq.host and externalRabbitmq.hosts are both set: choose one
{{- end }}
{{- if and .Values.externalRedis.sentinelPort (not .Values.externalRedis.secretKeys.url) }}
externalRedis.sentinelPort is set, but the sentinels are named only by a URL in a Secret: set existingSecret and secretKeys.url
{{- end }}
{{- $tls := .Values.externalPostgresql.tls }}
{{- if and (not .Values.postgresql.enabled) (hasPrefix "verify-" $tls.mode) (not $tls.caSecret) (not .Values.externalPostgresql.secretKeys.url) }}
externalPostgresql.tls.mode is {{ $tls.mode }}, which needs the CA's certificate: set tls.caSecret
{{- end }}
{{- range $store := list "redis" "rabbitmq" }}
{{- $own := index $.Values $store }}
{{- if and $own.enabled $own.auth.password (not (regexMatch "^[A-Za-z0-9._~-]+$" $own.auth.password)) }}
{{ $store }}.auth.password has characters that must be escaped in a URL: use letters, digits and . _ ~ -
{{- end }}
{{- end }}
{{- with .Values.rabbitmq }}
{{- if and .enabled .reader.enabled (eq .reader.username .auth.username) }}
rabbitmq.reader.username is {{ .reader.username }}, the user of the service: choose another name
{{- end }}
{{- if and .enabled .reader.enabled .reader.password (not (regexMatch "^[A-Za-z0-9._~-]+$" .reader.password)) }}
rabbitmq.reader.password has characters that must be escaped in a URL: use letters, digits and . _ ~ -
{{- end }}
{{- end }}
{{- end -}}

{{- define "rowlock.faultsOfSecrets" -}}
{{- $values := .Values }}
{{- $blocks := dict "auth" (dict "on" true "given" $values.auth.tokenSecret "existing" $values.auth.existingSecret) }}
{{- range $store := list "postgresql" "redis" "rabbitmq" }}
{{- $own := index $values $store }}
{{- $_ := set $blocks (printf "%s.auth" $store) (dict "on" $own.enabled "given" $own.auth.password "existing" $own.auth.existingSecret) }}
{{- end }}
{{- $reader := $values.rabbitmq.reader }}
{{- $_ := set $blocks "rabbitmq.reader" (dict "on" (and $values.rabbitmq.enabled $reader.enabled) "given" $reader.password "existing" $reader.existingSecret) }}
{{- range $block := list "Postgresql" "Redis" "Rabbitmq" }}
{{- $external := index $values (printf "external%s" $block) }}
{{- $_ := set $blocks (printf "external%s" $block) (dict "on" (not (index $values (lower $block)).enabled) "outside" true "given" $external.password "existing" $external.existingSecret) }}
{{- end }}
{{- $_ := set $blocks "smoke" (dict "on" $values.smoke.enabled "given" "" "existing" $values.smoke.existingSecret) }}
{{- range $name, $block := $blocks }}
{{- if and $block.on $block.given $block.existing }}
{{ $name }} has both a value and an existingSecret: choose one
{{- end }}
{{- if and $block.on (not $values.secrets.generate) (not $block.outside) (not $block.given) (not $block.existing) }}
secrets.generate is false, so {{ $name }}.existingSecret must name a Secret{{ if eq $name "smoke" }}, or smoke.enabled be false{{ end }}
{{- end }}
{{- end }}
{{- if and $values.auth.tokenSecret (lt (len $values.auth.tokenSecret) 32) }}
auth.tokenSecret has {{ len $values.auth.tokenSecret }} characters: at least 32 are needed
{{- end }}
{{- end -}}

{{/* The maximum number of a component's pods, without the one that a rollout adds. */}}
{{- define "rowlock.podsMax" -}}
{{- if .autoscaling.enabled }}{{ .autoscaling.maxReplicas }}{{ else if .keda.enabled }}{{ .keda.maxReplicas }}{{ else }}{{ .replicas }}{{ end -}}
{{- end -}}

{{/* The maximum number of connections to PostgreSQL: all pools. */}}
{{- define "rowlock.connectionsAtRest" -}}
{{- $sum := 0 -}}
{{- range list .Values.api .Values.expirer -}}
{{- $sum = add $sum (mul (include "rowlock.podsMax" . | int) (int .poolSize)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The same during a rollout, which adds a pod of each component, and a connection for the migrations. */}}
{{- define "rowlock.connectionsMax" -}}
{{- add (include "rowlock.connectionsAtRest" .) .Values.api.poolSize .Values.expirer.poolSize 1 -}}
{{- end -}}

{{- define "rowlock.faultsOfConnections" -}}
{{- $postgresql := include "rowlock.postgresql" . | fromYaml }}
{{- $needed := include "rowlock.connectionsMax" . | int }}
{{- $free := sub (int $postgresql.maxConnections) 3 | int }}
{{- if gt $needed $free }}
the pods may open {{ $needed }} connections to PostgreSQL, but only {{ $free }} of its {{ $postgresql.maxConnections }} are available (3 are reserved for superusers): lower poolSize or the number of pods, or raise {{ ternary "postgresql" "externalPostgresql" .Values.postgresql.enabled }}.maxConnections
{{- end }}
{{- end -}}
