{{/* What Hub and service are told. All of it is data: variables, JSON, and files of the admin's own. */}}

{{/* Variables that jupyterhub_config.py reads. */}}
{{- define "kaos.settings" -}}
KAOS_ENGINE: kubernetes
KAOS_WORKLOADS: {{ include "kaos.workloads" . }}
KAOS_HUB_IMAGE: {{ include "kaos.image" (list . "hub") | quote }}
KAOS_RUNTIME_IMAGE: {{ include "kaos.image" (list . "runtime") | quote }}
KAOS_BUILDER_IMAGE: {{ include "kaos.image" (list . "builder") | quote }}
KAOS_NOTEBOOK_IMAGE: {{ include "kaos.image" (list . "notebook") | quote }}
KAOS_REGISTRY: {{ .Values.registry.url | quote }}
KAOS_PULL_REGISTRY: {{ .Values.registry.pullUrl | quote }}
KAOS_PUSH_SECRET: {{ .Values.registry.pushSecret | quote }}
KAOS_BASE_SECRET: {{ .Values.registry.baseSecret | quote }}
KAOS_PULL_SECRETS: {{ join "," .Values.registry.pullSecrets | quote }}
KAOS_STORE: {{ .Values.store.url | quote }}
KAOS_PUBLIC_URL: {{ include "kaos.url" . | quote }}
{{- with .Values.wildcardHost }}
KAOS_SUBDOMAIN_HOST: {{ include "kaos.url" $ | trimSuffix (include "kaos.path" $) | quote }}
{{- end }}
KAOS_ADMIN: {{ .Values.admin | quote }}
KAOS_TREES_CLAIM: {{ ternary "kaos-trees" "" .Values.storage.trees.enabled | quote }}
{{- end }}

{{/* The settings that values of their own stand for; what `config` says wins. */}}
{{- define "kaos.ownConfig" -}}
{{- $engine := dict -}}
{{- with .Values.registry.insecure }}{{ $_ := set $engine "insecure_registries" . }}{{ end -}}
{{- with .Values.registry.mirrors }}{{ $_ := set $engine "registry_mirrors" . }}{{ end -}}
{{- if .Values.registry.loginSecret }}{{ $_ := set $engine "registry_login" "/run/kaos/registry/config.json" }}{{ end -}}
{{- if .Values.registry.caConfigMap -}}
{{- $_ := set $engine "registry_ca" "/run/kaos/ca/ca.crt" -}}
{{- $_ := set $engine "ca_configmap" .Values.registry.caConfigMap -}}
{{- end -}}
{{- $spawner := dict -}}
{{- with .Values.storage.class -}}
{{- $_ := set $engine "volume_class" . -}}
{{- $_ := set $spawner "storage_class" . -}}
{{- end -}}
{{- $service := dict "trusted_proxies" (prepend .Values.proxy.trusted (printf "proxy-pods.%s" .Release.Namespace)) -}}
{{- dict "KaosService" $service "KubernetesEngine" $engine "KubeSpawner" $spawner | toJson -}}
{{- end }}

{{/* Files of the folder that is read last, in the order of their names; call it with (list $ "hub"). */}}
{{- define "kaos.config" -}}
{{- $top := index . 0 -}}
{{- $files := dict "00-chart.json" (include "kaos.ownConfig" $top) "10-config.json" (toJson $top.Values.config) -}}
{{- range $name, $text := $top.Values.extraConfig }}{{ $_ := set $files (printf "20-%s.py" $name) $text }}{{ end -}}
{{- if eq (index . 1) "hub" -}}
{{- $_ := set $files "30-hub.json" (toJson $top.Values.hub.config) -}}
{{- range $name, $text := $top.Values.hub.extraConfig }}{{ $_ := set $files (printf "40-%s.py" $name) $text }}{{ end -}}
{{- end -}}
{{ toJson $files }}
{{- end }}

{{/* Variables, volumes and mounts that Hub and service have in common; each with (list $ "hub" .Values.hub). */}}
{{- define "kaos.environment" -}}
{{- $component := index . 2 -}}
envFrom:
  - configMapRef: {name: settings}
env:
  - name: KAOS_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - {name: KAOS_SECRETS_DIR, value: /run/kaos/secrets}
  - {name: KAOS_EXTRA_CONFIG, value: /run/kaos/config}
  {{- with $component.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "kaos.mounts" -}}
{{- $component := index . 2 -}}
- {name: data, mountPath: /var/lib/kaos}
- {name: secrets, mountPath: /run/kaos/secrets, readOnly: true}
- {name: config, mountPath: /run/kaos/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- with $component.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kaos.volumes" -}}
{{- $name := index . 1 -}}{{- $component := index . 2 -}}
- name: data
  persistentVolumeClaim: {claimName: {{ $name }}}
- {{- include "kaos.secretsVolume" . | nindent 2 }}
- name: config
  secret: {secretName: config-{{ $name }}, defaultMode: 0440}
- name: tmp
  emptyDir: {}
{{- with $component.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
