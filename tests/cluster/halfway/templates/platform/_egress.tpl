{{- /* Egress rules that several policies share. Numbers, not names of ports: not every network plugin resolves those. */ -}}

{{- /* To name servers, wherever the cluster has them: some answer from a link-local address of the node. */ -}}
{{- define "moorage.egressOfNames" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{- define "moorage.egressOfData" -}}
{{ include "moorage.egressOfNames" . }}
{{- if .Values.valkey.enabled }}
- ports:
    - {protocol: TCP, port: 6379}
  to:
    - podSelector:
        matchLabels:
          {{- include "moorage.selector" (dict "part" "valkey" "root" .) | nindent 10 }}
{{- else }}
# A Redis outside: its address is not known here, its port may be any.
- to:
    {{- toYaml .Values.networkPolicy.gatewayTo | nindent 4 }}
{{- end }}
{{- end -}}
