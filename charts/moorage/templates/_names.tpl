{{- /* Names and labels. A part is gateway, operator, valkey, bootstrap or test. */ -}}

{{- define "moorage.name" -}}
{{- if contains "moorage" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-moorage" (.Release.Name | trunc 32 | trimSuffix "-") }}{{ end }}
{{- end -}}

{{- /* (part, root) → what a selector matches; never changes over upgrades. */ -}}
{{- define "moorage.selector" -}}
app.kubernetes.io/name: moorage
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "moorage.labels" -}}
{{ include "moorage.selector" . }}
app.kubernetes.io/part-of: moorage
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "moorage-%s" .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Names of the served namespaces, as a JSON list. */ -}}
{{- define "moorage.namespaces" -}}
{{- $names := list -}}
{{- range .Values.namespaces }}{{ $names = append $names .name }}{{ end -}}
{{- if $names }}{{ $names | uniq | toJson }}{{ else }}{{ list .Release.Namespace | toJson }}{{ end -}}
{{- end -}}

{{- /* Secrets with what opens models and tools, and hosts that may be private, each as a JSON list. */ -}}
{{- define "moorage.secrets" -}}
{{ concat .Values.models.secrets .Values.toolboxes.secrets | uniq | toJson }}
{{- end -}}

{{- define "moorage.allowedUpstreams" -}}
{{ concat .Values.models.allowedUpstreams .Values.toolboxes.allowedUpstreams | uniq | toJson }}
{{- end -}}

{{- define "moorage.tenant" -}}
{{- if .Values.bootstrapKey.tenant }}{{ .Values.bootstrapKey.tenant }}
{{- else if .Values.namespaces }}{{ with first .Values.namespaces }}{{ default .name .tenant }}{{ end }}
{{- else }}{{ .Release.Namespace }}{{ end -}}
{{- end -}}

{{- /* (part, given, root) → the image of moorage-PART, or a sentence. */ -}}
{{- define "moorage.image" -}}
{{- $image := .root.Values.image -}}
{{- if .given }}{{ .given }}
{{- else if $image.registry }}{{ printf "%s/moorage-%s:%s" (trimSuffix "/" $image.registry) .part (default .root.Chart.AppVersion $image.tag) }}
{{- else }}
{{- fail (printf "\n\nThere is no image of %s: build and push one (scripts/images build --push REGISTRY), then set image.registry=REGISTRY or %s.image=IMAGE. There is no public one.\n" .part .part) }}
{{- end -}}
{{- end -}}

{{- define "moorage.valkeySecret" -}}
{{ default (printf "%s-valkey" (include "moorage.name" .)) .Values.valkey.existingSecret }}
{{- end -}}

{{- define "moorage.tokenKeySecret" -}}
{{ default (printf "%s-token-key" (include "moorage.name" .)) .Values.tokenKey.existingSecret }}
{{- end -}}

{{- define "moorage.firstKeySecret" -}}
{{ default (printf "%s-first-key" (include "moorage.name" .)) .Values.bootstrapKey.existingSecret }}
{{- end -}}

{{- define "moorage.storeClaim" -}}
{{ default (printf "%s-store" (include "moorage.name" .)) .Values.store.folder.existingClaim }}
{{- end -}}
