{{- /* What the gateway's promise `always` asks for: nothing is acknowledged that is not on disk, nothing is evicted. */ -}}
{{- define "moorage.valkeyConfig" -}}
port 6379
bind 0.0.0.0
dir /data
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
save ""
maxmemory-policy noeviction
tcp-keepalive 60
include /run/valkey/auth.conf
{{- end -}}
