"""A service on Kubernetes, and on Knative."""

from __future__ import annotations

import math

from modelport.images.exporting import Exported, quoted, words
from modelport.images.plan import PORT, USER

_DRAIN_S = 5
"""How long a pod that is to end still takes connections, until nobody sends it any."""


def files(service: Exported) -> dict[str, str]:
    """The text of each file by its name: `kubectl apply --filename` takes them."""
    answer_s = math.ceil(service.timeout_s)
    user = USER.partition(":")[0]
    return {
        "kubernetes.yaml": _KUBERNETES.format(
            name=quoted(service.name),
            plain_name=service.name,
            image=quoted(service.image),
            args=words((*service.arguments, "--drain-delay", str(_DRAIN_S))),
            replicas=service.replicas,
            most=max(10, 5 * service.replicas),
            port=service.port,
            inner=PORT,
            user=user,
            limits=_LIMITS.format(user=user),
            grace_s=answer_s + _DRAIN_S + 10,
        )
    }


def knative(service: Exported) -> dict[str, str]:
    """The text of each file by its name: one Knative Service."""
    return {
        "service.yaml": _KNATIVE.format(
            name=quoted(service.name),
            plain_name=service.name,
            image=quoted(service.image),
            args=words(service.arguments),
            inner=PORT,
            limits=_LIMITS.format(user=USER.partition(":")[0]),
            timeout_s=min(600, math.ceil(service.timeout_s) + 5),
        )
    }


_LIMITS = """\
          # Measure your model, and say what it needs: `modelport doctor` tells its memory.
          resources:
            requests:
              cpu: 500m
              memory: 256Mi
            limits:
              memory: 1Gi
          securityContext:
            runAsNonRoot: true
            runAsUser: {user}
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop:
                - ALL
          volumeMounts:
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: tmp
          emptyDir: {{}}
"""
"""What both state of a container: what it may take, and that it may do nothing else."""

_KUBERNETES = """\
# {plain_name} on Kubernetes: kubectl apply --filename kubernetes.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
    app.kubernetes.io/managed-by: modelport
spec:
  replicas: {replicas}
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "{inner}"
        prometheus.io/path: /metrics
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {grace_s}
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {user}
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: {name}
      containers:
        - name: api
          image: {image}
          args: {args}
          env:
            - name: PORT
              value: "{inner}"
          ports:
            - name: http
              containerPort: {inner}
          # Ready means that the model gives its recorded answers.
          startupProbe:
            httpGet:
              path: /readyz
              port: http
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            httpGet:
              path: /readyz
              port: http
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          livenessProbe:
            httpGet:
              path: /livez
              port: http
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
{limits}---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  type: ClusterIP
  selector:
    app.kubernetes.io/name: {name}
  ports:
    - name: http
      port: {port}
      targetPort: http
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {name}
  minReplicas: {replicas}
  maxReplicas: {most}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
"""

_KNATIVE = """\
# {plain_name} on Knative: kubectl apply --filename service.yaml
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: "0"
        autoscaling.knative.dev/max-scale: "10"
        autoscaling.knative.dev/target: "100"
    spec:
      containerConcurrency: 0
      timeoutSeconds: {timeout_s}
      enableServiceLinks: false
      containers:
        - name: api
          image: {image}
          args: {args}
          ports:
            - name: http1
              containerPort: {inner}
          readinessProbe:
            httpGet:
              path: /readyz
            timeoutSeconds: 5
          livenessProbe:
            httpGet:
              path: /livez
            timeoutSeconds: 5
{limits}"""
