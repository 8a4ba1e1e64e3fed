{{/* What would go wrong later, said now. Each problem is a sentence that ends with what to do.
     What only the cluster knows is asked where Helm asks it, that is not in `helm template`. */}}

{{- define "kaos.problems" -}}
{{- $found := list -}}
{{- $values := .Values -}}
{{- $nowhere := list -}}
{{- range list "hub" "runtime" "builder" "notebook" -}}
{{- if not (or $values.image.registry (index $values.image .)) }}{{ $nowhere = append $nowhere . }}{{ end -}}
{{- end -}}
{{- with $nowhere -}}
{{- $found = append $found (printf "image.registry says nothing of where the images are (%s): --set image.registry=registry.example.org/kaos-hub, after make images PUSH=1" (join ", " .)) -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.host) -}}
{{- $found = append $found "ingress.enabled without ingress.host: set the name by which people reach the hub." -}}
{{- end -}}
{{- if and $values.wildcardHost (ne $values.wildcardHost (printf "*.%s" (include "kaos.url" . | urlParse | dig "hostname" ""))) -}}
{{- $found = append $found (printf "wildcardHost: %s is not the star below the name by which people reach the hub. Set publicUrl, or ingress.host: for *.hub.example.org it is hub.example.org." $values.wildcardHost) -}}
{{- end -}}
{{- range without (splitList "/" (include "kaos.path" .)) "" -}}
{{- if has . (list "hub" "services" "user") -}}
{{- $found = append $found (printf "publicUrl: the path of the hub has %q in it, as the Hub's own paths have. Take another: https://example.org/jupyter" .) -}}
{{- end -}}
{{- end -}}
{{- if not (or $values.hub.enabled $values.publicUrl) -}}
{{- $found = append $found "hub.enabled=false without publicUrl: say how people reach the Hub that is there already." -}}
{{- end -}}
{{- if and $values.proxy.service.nodePort (ne $values.proxy.service.type "NodePort") -}}
{{- $found = append $found "proxy.service.nodePort counts only with proxy.service.type=NodePort: set that, or take the port away." -}}
{{- end -}}
{{- if and $values.store.secret (not (hasPrefix "s3://" $values.store.url)) -}}
{{- $found = append $found "store.secret counts only with a store.url that begins with s3://: set that, or take the secret away." -}}
{{- end -}}
{{- if eq (include "kaos.workloads" .) .Release.Namespace -}}
{{- $found = append $found "workloads.namespace is the namespace of the release: users' pods must not be beside the Hub's. Name another." -}}
{{- end -}}
{{- if $values.checks.enabled -}}
{{- if (lookup "v1" "Namespace" "" "kube-system") -}}
{{- $found = concat $found (include "kaos.problemsThere" . | fromJsonArray) -}}
{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end }}

{{/* Those of the cluster. */}}
{{- define "kaos.problemsThere" -}}
{{- $found := list -}}{{- $here := .Release.Namespace -}}{{- $there := include "kaos.workloads" . -}}
{{- range $name := list $here (ternary "" $there .Values.workloads.createNamespace) -}}
{{- if and $name $.Values.network.policies -}}
{{- $labels := dig "metadata" "labels" dict (lookup "v1" "Namespace" "" $name | default dict) -}}
{{- $itself := and (eq $name $here) (semverCompare ">=1.21-0" $.Capabilities.KubeVersion.Version) -}}
{{- if not (or $itself (eq (index $labels "kubernetes.io/metadata.name" | default "") $name)) -}}
{{- $found = append $found (printf "The namespace %s is not there, or lacks the label by which network policies know it: kubectl create namespace %s; kubectl label namespace %s kubernetes.io/metadata.name=%s" $name $name $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $wanted := list
  (list "Secret" $here .Values.secrets.existing (splitList " " (printf "%s %s proxy" (include "kaos.secretsOf" "service") (ternary (include "kaos.secretsOf" "hub") "admission" .Values.hub.enabled)) | uniq) "secrets.existing")
  (list "Secret" $here .Values.database.secret (ternary (list "hub" "service") (list "service") .Values.hub.enabled) "database.secret")
  (list "Secret" $here .Values.store.secret (list "s3-access-key-id" "s3-secret-access-key") "store.secret")
  (list "Secret" $here .Values.registry.loginSecret (list "config.json") "registry.loginSecret")
  (list "ConfigMap" $here .Values.registry.caConfigMap (list "ca.crt") "registry.caConfigMap")
  (list "ConfigMap" $there .Values.registry.caConfigMap (list "ca.crt") "registry.caConfigMap")
  (list "Secret" $there .Values.registry.pushSecret (list ".dockerconfigjson") "registry.pushSecret")
  (list "Secret" $there .Values.registry.baseSecret (list ".dockerconfigjson") "registry.baseSecret") -}}
{{- range .Values.registry.pullSecrets }}{{ $wanted = append $wanted (list "Secret" $there . (list ".dockerconfigjson") "registry.pullSecrets") }}{{ end -}}
{{- range .Values.image.pullSecrets }}{{ $wanted = append $wanted (list "Secret" $here . (list ".dockerconfigjson") "image.pullSecrets") }}{{ end -}}
{{- if and .Values.ingress.enabled .Values.ingress.tlsSecret (not .Values.ingress.annotations) -}}
{{- $wanted = append $wanted (list "Secret" $here .Values.ingress.tlsSecret (list "tls.crt" "tls.key") "ingress.tlsSecret") -}}
{{- end -}}
{{- range $wanted -}}
{{- $kind := index . 0 -}}{{- $where := index . 1 -}}{{- $name := index . 2 -}}
{{- if $name -}}
{{- $data := (lookup "v1" $kind $where $name).data | default dict -}}
{{- $lacking := list -}}
{{- range index . 3 }}{{ if not (hasKey $data .) }}{{ $lacking = append $lacking . }}{{ end }}{{ end -}}
{{- if $lacking -}}
{{- $hint := "" -}}
{{- if not (lookup "v1" "Namespace" "" $where) -}}
{{- $hint = printf ", and before that the namespace, with workloads.createNamespace=false: docs/howto/private-registry.md" -}}
{{- end -}}
{{- $found = append $found (printf "%s names the %s %s, which must be in the namespace %s and lacks: %s. Make it before the install: kubectl -n %s create %s …%s" (index . 4) $kind $name $where (join ", " $lacking) $where (ternary "secret" "configmap" (eq $kind "Secret")) $hint) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $classes := dict -}}{{- $default := "" -}}
{{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items -}}
{{- $_ := set $classes .metadata.name true -}}
{{- if eq (dig "metadata" "annotations" "storageclass.kubernetes.io/is-default-class" "" .) "true" }}{{ $default = .metadata.name }}{{ end -}}
{{- end -}}
{{- range $value, $name := dict "storage.class" .Values.storage.class "storage.trees.class" .Values.storage.trees.class -}}
{{- if and $name (not (hasKey $classes $name)) -}}
{{- $found = append $found (printf "%s: there is no storage class %s; the cluster has: %s." $value $name (keys $classes | sortAlpha | join ", " | default "none")) -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.storage.class $default) -}}
{{- $found = append $found (printf "The cluster has no default storage class, so all claims would wait for ever: name one with storage.class (there are: %s)." (keys $classes | sortAlpha | join ", " | default "none")) -}}
{{- end -}}
{{- with .Values.proxy.service.nodePort -}}
{{- $port := int . -}}
{{- range $service := (lookup "v1" "Service" "" "").items -}}
{{- range dig "spec" "ports" list $service -}}
{{- if and (eq (int (.nodePort | default 0)) $port) (ne (printf "%s/%s" $service.metadata.namespace $service.metadata.name) (printf "%s/proxy" $here)) -}}
{{- $found = append $found (printf "The port %d is taken on all nodes, by the Service %s in the namespace %s: choose another with proxy.service.nodePort, or leave it empty." $port $service.metadata.name $service.metadata.namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- $found = append $found "monitoring.enabled needs the Prometheus Operator, whose ServiceMonitor this cluster does not know: install it first, or leave monitoring out." -}}
{{- end -}}
{{ toJson $found }}
{{- end }}
