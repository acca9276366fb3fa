{{- /* What pods have in common. */ -}}

{{- define "moorage.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "moorage.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "moorage.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The values of one part's pods that say where they run. */ -}}
{{- define "moorage.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Why a scanner's advice is not followed, in its own words. */ -}}
{{- define "moorage.scanned" -}}
checkov.io/skip1: CKV_K8S_11=A CPU limit throttles a proxy of streams at its busiest; requests and the scheduler share the node
checkov.io/skip2: CKV_K8S_43=The image is a value; give one by digest where you want that
checkov.io/skip3: CKV_K8S_15=The pull policy is a value; tags of releases do not move
checkov.io/skip4: CKV_K8S_35=The settings are variables by design; they reach no log and no child process
{{- end -}}

{{- /* MOORAGE_REDIS_URL, and the password that is put into it by the kubelet. */ -}}
{{- define "moorage.redisEnv" -}}
{{- $redis := .Values.redis -}}
{{- if .Values.valkey.enabled -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "moorage.valkeySecret" . }}
      key: password
- name: MOORAGE_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "moorage.name" . }}-valkey.{{ .Release.Namespace }}.svc:6379/0
{{- else if $redis.urlSecret.name -}}
- name: MOORAGE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $redis.urlSecret.name }}
      key: {{ $redis.urlSecret.key }}
{{- else if $redis.url -}}
{{- $parts := splitn "://" 2 $redis.url -}}
{{- $rest := $parts._1 -}}
{{- if $redis.caSecret.name }}{{ $rest = printf "%s%sssl_ca_certs=/etc/moorage/redis/ca.crt" $rest (ternary "&" "?" (contains "?" $rest)) }}{{ end -}}
{{- if $redis.passwordSecret.name -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $redis.passwordSecret.name }}
      key: {{ $redis.passwordSecret.key }}
- name: MOORAGE_REDIS_URL
  value: {{ printf "%s://%s:$(REDIS_PASSWORD)@%s" $parts._0 $redis.username $rest | quote }}
{{- else -}}
- name: MOORAGE_REDIS_URL
  value: {{ printf "%s://%s" $parts._0 $rest | quote }}
{{- end -}}
{{- else -}}
{{- fail "\n\nvalkey.enabled is false and no Redis is given: set redis.url (with redis.passwordSecret.name) or redis.urlSecret.name.\n" -}}
{{- end -}}
{{- end -}}

{{- define "moorage.redisCaMount" -}}
{{- if and (not .Values.valkey.enabled) .Values.redis.caSecret.name }}
- name: redis-ca
  mountPath: /etc/moorage/redis
  readOnly: true
{{- end }}
{{- end -}}

{{- define "moorage.redisCaVolume" -}}
{{- if and (not .Values.valkey.enabled) .Values.redis.caSecret.name }}
- name: redis-ca
  secret:
    secretName: {{ .Values.redis.caSecret.name }}
    items:
      - key: {{ .Values.redis.caSecret.key }}
        path: ca.crt
{{- end }}
{{- end -}}

{{- /* MOORAGE_STORE and what it needs: of the gateway and of the Job that writes the first key. */ -}}
{{- define "moorage.storeEnv" -}}
{{- $s3 := .Values.store.s3 -}}
{{- if eq .Values.store.kind "folder" -}}
- name: MOORAGE_STORE
  value: /var/lib/moorage/objects
{{- else -}}
{{- if not (and $s3.endpoint $s3.bucket $s3.existingSecret) -}}
{{- fail "\n\nstore.kind is s3: set store.s3.endpoint, store.s3.bucket and store.s3.existingSecret (a Secret with the keys access-key and secret-key).\n" -}}
{{- end -}}
- name: MOORAGE_STORE
  value: {{ printf "s3://%s%s" $s3.bucket (ternary (printf "/%s" (trimAll "/" $s3.prefix)) "" (ne $s3.prefix "")) | quote }}
- name: MOORAGE_S3_ENDPOINT
  value: {{ $s3.endpoint | quote }}
- name: MOORAGE_S3_REGION
  value: {{ $s3.region | quote }}
- name: MOORAGE_S3_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $s3.existingSecret }}
      key: {{ $s3.accessKeyKey }}
- name: MOORAGE_S3_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $s3.existingSecret }}
      key: {{ $s3.secretKeyKey }}
{{- end -}}
{{- end -}}

{{- define "moorage.storeMount" -}}
{{- if eq .Values.store.kind "folder" }}
- name: store
  mountPath: /var/lib/moorage
{{- end }}
{{- end -}}

{{- define "moorage.storeVolume" -}}
{{- if eq .Values.store.kind "folder" }}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "moorage.storeClaim" . }}
{{- end }}
{{- end -}}
