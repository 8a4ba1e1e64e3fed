{{/* What things are called, and what several of them have in common. */}}

{{/* The namespace of builds, notebooks and trainings. */}}
{{- define "kaos.workloads" -}}
{{ .Values.workloads.namespace | default (printf "%s-workloads" .Release.Namespace) }}
{{- end }}

{{/* Labels of an object; call it with (list $ "component"). */}}
{{- define "kaos.labels" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: kaos-hub
app.kubernetes.io/part-of: kaos-hub
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
{{- end }}

{{/* By what the pods of a component are known; it can never be changed in a Deployment. */}}
{{- define "kaos.selector" -}}
app.kubernetes.io/part-of: kaos-hub
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* What stays when the release goes. */}}
{{- define "kaos.keep" -}}
{{- if .Values.keepData -}}
annotations: {helm.sh/resource-policy: keep}
{{- end }}
{{- end }}

{{/* The reference of an image; call it with (list $ "hub"). */}}
{{- define "kaos.image" -}}
{{- $top := index . 0 -}}{{- $name := index . 1 -}}{{- $image := $top.Values.image -}}
{{- index $image $name | default (printf "%s/%s:%s" $image.registry $name ($image.tag | default $top.Chart.AppVersion)) -}}
{{- end }}

{{/* How people reach the hub, as far as it can be known. */}}
{{- define "kaos.url" -}}
{{- if .Values.publicUrl -}}
{{ .Values.publicUrl | trimSuffix "/" }}
{{- else if .Values.ingress.enabled -}}
{{ ternary "https" "http" (not (empty .Values.ingress.tlsSecret)) }}://{{ .Values.ingress.host }}
{{- else -}}
{{- $service := dict -}}
{{- if .Values.hub.enabled -}}
{{- $service = lookup "v1" "Service" .Release.Namespace "proxy" | default dict -}}
{{- end -}}
{{- if eq .Values.proxy.service.type "NodePort" -}}
{{- $port := .Values.proxy.service.nodePort -}}
{{- range dig "spec" "ports" list $service }}{{ $port = $port | default .nodePort }}{{ end -}}
{{- $host := "" -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- range .status.addresses -}}
{{- if or (eq .type "ExternalIP") (and (eq .type "InternalIP") (not $host)) }}{{ $host = .address }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if and $host $port }}http://{{ $host }}:{{ $port }}{{ end -}}
{{- else if eq .Values.proxy.service.type "LoadBalancer" -}}
{{- range dig "status" "loadBalancer" "ingress" list $service }}http://{{ .hostname | default .ip }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The path below which the hub is: empty, or like /jupyter. */}}
{{- define "kaos.path" -}}
{{- with include "kaos.url" . }}{{ urlParse . | dig "path" "" | trimSuffix "/" }}{{ end -}}
{{- end }}

{{/* The pods of Hub, proxy and service meet Pod Security's `restricted`. */}}
{{- define "kaos.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kaos.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a component's pod may run, and with what it is pulled; call it with (list $ .Values.hub). */}}
{{- define "kaos.place" -}}
{{- $top := index . 0 -}}{{- $component := index . 1 -}}
{{- with $component.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $component.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with $component.priorityClass }}
priorityClassName: {{ . }}
{{- end }}
{{- with $top.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A peer of network policies: all of our namespace, or all of that of workloads, by the name that each bears as label. */}}
{{- define "kaos.from" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
{{- end }}

{{/* From Kubernetes 1.21 on budgets are in policy/v1; policy/v1beta1 went with 1.25. */}}
{{- define "kaos.disruption" -}}
{{- $top := index . 0 -}}{{- $component := index . 1 -}}
{{- $version := "" -}}
{{- if $top.Capabilities.APIVersions.Has "policy/v1/PodDisruptionBudget" -}}
{{- $version = "policy/v1" -}}
{{- else if $top.Capabilities.APIVersions.Has "policy/v1beta1/PodDisruptionBudget" -}}
{{- $version = "policy/v1beta1" -}}
{{- else if semverCompare ">=1.21-0" $top.Capabilities.KubeVersion.Version -}}
{{- $version = "policy/v1" -}}
{{- end -}}
{{- if $version -}}
apiVersion: {{ $version }}
kind: PodDisruptionBudget
metadata:
  name: {{ $component }}
  labels: {{- include "kaos.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ $top.Values.disruption.maxUnavailable }}
  selector: {matchLabels: {app.kubernetes.io/part-of: kaos-hub, app.kubernetes.io/component: {{ $component }}}}
{{- end }}
{{- end }}

{{/* By which label policies know Hub and proxy: ours, or those of zero-to-jupyterhub. */}}
{{- define "kaos.componentLabel" -}}
{{ ternary "app.kubernetes.io/component" "component" .Values.hub.enabled }}
{{- end }}

{{/* A login and certificates for the service, where the registry wants them. */}}
{{- define "kaos.registryMounts" -}}
{{- if .Values.registry.loginSecret }}
- {name: registry, mountPath: /run/kaos/registry, readOnly: true}
{{- end }}
{{- if .Values.registry.caConfigMap }}
- {name: ca, mountPath: /run/kaos/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "kaos.registryVolumes" -}}
{{- with .Values.registry.loginSecret }}
- name: registry
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.registry.caConfigMap }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Has the Prometheus Operator gather metrics; call it with (list $ "hub" "port" "/path"). */}}
{{- define "kaos.monitor" -}}
{{- $top := index . 0 -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: kaos-{{ index . 1 }}
  labels:
    {{- include "kaos.labels" . | nindent 4 }}
    {{- with $top.Values.monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels: {{- include "kaos.selector" (index . 1) | nindent 6 }}
  endpoints:
    - port: {{ index . 2 }}
      path: {{ index . 3 }}
      authorization:
        credentials: {name: {{ include "kaos.secretName" $top }}, key: metrics}
{{- end }}
