{{/* A quantity of Kubernetes as a number: 250m is 0.25, 1Ki is 1024. */}}
{{- define "rowlock.amount" -}}
{{- $text := include "rowlock.text" . -}}
{{- $factors := dict "m" 0.001 "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (index $factors (regexFind "[A-Za-z]*$" $text)) -}}
{{- end -}}
