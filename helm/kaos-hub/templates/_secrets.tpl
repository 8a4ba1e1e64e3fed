{{/* The secrets of kaos_hub: made once, and never changed by an upgrade. */}}

{{- define "kaos.secretName" -}}
{{ .Values.secrets.existing | default "kaos" }}
{{- end }}

{{/* Who reads which, separated by spaces. */}}
{{- define "kaos.secretsOf" -}}
{{- if eq . "hub" -}}
admission cookie metrics password proxy service service-train users-password
{{- else if eq . "service" -}}
admission metrics service service-cookie service-train tickets
{{- else -}}
proxy
{{- end -}}
{{- end }}

{{/* All of them as JSON of base64. They are made once per rendering, so that whoever asks is told the same. */}}
{{- define "kaos.secrets" -}}
{{- if not (hasKey .Values.secrets "known") -}}
{{- $known := (lookup "v1" "Secret" .Release.Namespace (include "kaos.secretName" .)).data | default dict -}}
{{- $all := dict -}}
{{- range list "hub" "service" "proxy" -}}
{{- range splitList " " (include "kaos.secretsOf" .) -}}
{{- if hasKey $known . -}}
{{- $_ := set $all . (index $known .) -}}
{{- else if hasSuffix "password" . -}}
{{- /* to be read aloud and typed: eight groups of four, without what looks like something else */ -}}
{{- $letters := randAlphaNum 96 | lower | replace "l" "" | replace "o" "" | replace "0" "" | replace "1" "" | trunc 32 -}}
{{- $_ := set $all . (regexReplaceAll "(....)" $letters "${1}-" | trimSuffix "-" | b64enc) -}}
{{- else -}}
{{- $_ := set $all . (randAlphaNum 64 | sha256sum | b64enc) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set .Values.secrets "known" $all -}}
{{- end -}}
{{ toJson .Values.secrets.known }}
{{- end }}

{{/* What a secret or config map of the admin's holds, as far as it can be seen; call it with (list $ "Secret" name). */}}
{{- define "kaos.seen" -}}
{{- with index . 2 -}}
{{ (lookup "v1" (index $ 1) (index $ 0).Release.Namespace .).data | toJson }}
{{- end -}}
{{- end }}

{{/* A pod starts anew when something that it reads at its start has changed; call it with (list $ "hub"). */}}
{{- define "kaos.checksums" -}}
{{- $top := index . 0 -}}{{- $component := index . 1 -}}
{{- $own := splitList " " (include "kaos.secretsOf" $component) -}}
{{- $all := include "kaos.secrets" $top | fromJson -}}
{{- $read := list -}}
{{- range $own }}{{ $read = append $read (index $all .) }}{{ end -}}
checksum/secrets: {{ toJson $read | sha256sum }}
{{- if ne $component "proxy" }}
checksum/config: {{ printf "%s%s" (include "kaos.settings" $top) (include "kaos.config" .) | sha256sum }}
checksum/given: {{ list
    (include "kaos.seen" (list $top "Secret" $top.Values.database.secret))
    (include "kaos.seen" (list $top "Secret" $top.Values.registry.loginSecret))
    (include "kaos.seen" (list $top "ConfigMap" $top.Values.registry.caConfigMap)) | toJson | sha256sum }}
{{- end }}
{{- end }}

{{/* The volume with a component's secrets, each in a file; call it with (list $ "hub"). */}}
{{- define "kaos.secretsVolume" -}}
{{- $top := index . 0 -}}{{- $component := index . 1 -}}
name: secrets
projected:
  defaultMode: 0440
  sources:
    - secret:
        name: {{ include "kaos.secretName" $top }}
        items:
          {{- range splitList " " (include "kaos.secretsOf" $component) }}
          - {key: {{ . }}, path: {{ . }}}
          {{- end }}
    {{- if and $top.Values.database.secret (ne $component "proxy") }}
    - secret:
        name: {{ $top.Values.database.secret }}
        items:
          - {key: {{ $component }}, path: database-url}
    {{- end }}
    {{- if and $top.Values.store.secret (eq $component "service") }}
    - secret:
        name: {{ $top.Values.store.secret }}
        items:
          - {key: s3-access-key-id, path: s3-access-key-id}
          - {key: s3-secret-access-key, path: s3-secret-access-key}
    - secret:
        name: {{ $top.Values.store.secret }}
        optional: true
        items:
          - {key: s3-session-token, path: s3-session-token}
    {{- end }}
{{- end }}
