{{- define "ecs.name" -}}
{{- if contains "ecs-worker" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-ecs-worker" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* A value as text. Helm reads each number of a file as a float, and would write a million as 1e+06. */}}
{{- define "ecs.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . | toString }}{{ end }}
{{- end }}

{{- /* Labels that never change: Deployments select by them. Takes a list of the root and the component. */}}
{{- define "ecs.selector" -}}
app.kubernetes.io/name: ecs-worker
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "ecs.labels" -}}
{{ include "ecs.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ecs.secret" -}}
{{- if .Values.secret.existing }}{{ .Values.secret.existing }}{{ else }}{{ include "ecs.name" . }}{{ end }}
{{- end }}

{{- define "ecs.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}{{ else if .Values.serviceAccount.create }}{{ include "ecs.name" . }}{{ else }}default{{ end }}
{{- end }}

{{- define "ecs.image" -}}
{{ required "image.repository: the registry and name of the image that you built" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What the pods of both components have: root, component, its values. */}}
{{- define "ecs.pod" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}{{ $values := index . 2 -}}
serviceAccountName: {{ include "ecs.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "ecs.selector" (list $root $component) | nindent 8 }}
{{- end }}

{{- /* What the containers of both components have. */}}
{{- define "ecs.container" -}}
{{- $root := index . 0 }}{{ $values := index . 2 -}}
image: {{ include "ecs.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{ toYaml $values.resources | nindent 2 }}
envFrom:
  - configMapRef: {name: {{ include "ecs.name" $root }}}
volumeMounts:
  - {name: secret, mountPath: /etc/ecs-worker, readOnly: true}
  - {name: scratch, mountPath: /tmp}
  - {name: home, mountPath: /var/lib/ecs-worker}
{{- if $root.Values.brokerTls.secret }}
  - {name: broker-tls, mountPath: /etc/ecs-broker, readOnly: true}
{{- end }}
{{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Environment variables of files: root, values of the component, whether it has a journal. */}}
{{- define "ecs.env" -}}
{{- $root := index . 0 -}}
- {name: ECS_BROKER_URL_FILE, value: /etc/ecs-worker/broker-url}
- {name: OS_CLIENT_CONFIG_FILE, value: /etc/ecs-worker/clouds.yaml}
{{- if index . 2 }}
- {name: ECS_JOURNAL_URL_FILE, value: /etc/ecs-worker/journal-url}
{{- end }}
{{- if $root.Values.brokerTls.secret }}
- {name: ECS_BROKER_CA_FILE, value: /etc/ecs-broker/ca.crt}
{{- if $root.Values.brokerTls.clientCertificate }}
- {name: ECS_BROKER_CERT_FILE, value: /etc/ecs-broker/tls.crt}
- {name: ECS_BROKER_KEY_FILE, value: /etc/ecs-broker/tls.key}
{{- end }}
{{- end }}
{{- with (index . 1).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Volumes: root, the name of the Secret, whether its journal-url is mounted. */}}
{{- define "ecs.volumes" -}}
{{- $root := index . 0 -}}
- name: secret
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
      - {key: broker-url, path: broker-url}
      - {key: clouds.yaml, path: clouds.yaml}
{{- if index . 2 }}
      - {key: journal-url, path: journal-url}
{{- end }}
- name: scratch
  emptyDir: {sizeLimit: 256Mi}
- name: home
  emptyDir: {sizeLimit: 256Mi}
{{- if $root.Values.brokerTls.secret }}
- name: broker-tls
  secret: {secretName: {{ $root.Values.brokerTls.secret }}, defaultMode: 0440}
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* A probe: root, live or ready, whether of the gateway. */}}
{{- define "ecs.probe" -}}
{{- if eq (index . 0).Values.probes.type "exec" -}}
exec: {command: [ecs-worker, probe, {{ index . 1 }}{{ if index . 2 }}, --gateway{{ end }}]}
{{- else -}}
httpGet: {path: /{{ index . 1 }}z, port: http}
{{- end }}
timeoutSeconds: 3
{{- end }}

{{- define "ecs.probes" -}}
startupProbe:
  {{- include "ecs.probe" (list (index . 0) "live" (index . 1)) | nindent 2 }}
  periodSeconds: 2
  failureThreshold: 60
# Not readiness: a broker or cloud that is away is waited for, and a restart would help nobody.
livenessProbe:
  {{- include "ecs.probe" (list (index . 0) "live" (index . 1)) | nindent 2 }}
  periodSeconds: 10
  failureThreshold: 3
readinessProbe:
  {{- include "ecs.probe" (list (index . 0) "ready" (index . 1)) | nindent 2 }}
  periodSeconds: 5
  failureThreshold: 2
{{- end }}
