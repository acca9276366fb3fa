"""`moorage doctor`: is a cluster fit for Moorage, and what mends what is not. Layer: CLI.

It talks to Kubernetes through the `kubectl` on PATH, with the configuration and the logins that its user has already: a client library
would be the heaviest dependency of an SDK that agent images install. A file an idea: `kubectl`, `probe` and `gateway.look` ask (I/O),
`command` composes and prints, all else judges answers and is pure. Nothing but what stands here is asked for; of the operator's Deployment
only the three settings that `platform` names are looked at, and no Secret is ever read.

what is looked at                                   | right that it needs
----------------------------------------------------|-----------------------------------------------------------
version of the server                               | every account has it
definitions of HostedAgents                         | get customresourcedefinitions
operator, gateway, Valkey                           | list deployments, statefulsets in the platform's namespace
storage classes                                     | list storageclasses
agents' namespaces                                  | get these namespaces
which network plugin runs                           | list daemonsets in all namespaces
whether policies hold (`--probe` only)              | create, list and delete jobs, pods, networkpolicies there

A right that is missing is a finding (`could not look`), not a failure.
"""
