"""Custom resources: what a Kubernetes API server is told of each kind.

`definition` makes a CustomResourceDefinition out of a kind's JSON schema and a `Resource`; one file a kind holds its `Resource`. A new
kind adds its file here and itself to `RESOURCES`; `scripts/generate` writes the YAML.
"""

from moorage_api.resources.definition import Column, Resource, Rule, custom_resource_definition
from moorage_api.resources.hosted_agent import HOSTED_AGENT
from moorage_api.resources.model_endpoint import MODEL_ENDPOINT
from moorage_api.resources.routine import ROUTINE
from moorage_api.resources.toolbox import TOOLBOX

RESOURCES = (HOSTED_AGENT, MODEL_ENDPOINT, TOOLBOX, ROUTINE)

__all__ = [
    "HOSTED_AGENT",
    "MODEL_ENDPOINT",
    "RESOURCES",
    "ROUTINE",
    "TOOLBOX",
    "Column",
    "Resource",
    "Rule",
    "custom_resource_definition",
]
