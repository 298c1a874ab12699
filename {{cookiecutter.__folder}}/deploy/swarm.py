"""Convert the production Compose file for Docker Swarm, which reads an older Compose format.

docker compose --file compose.prod.yaml config --format json | python3 deploy/swarm.py IMAGE >stack.json
docker stack deploy --compose-file stack.json NAME

Every node must have IMAGE or be able to pull it. Swarm publishes ports on every address of every node: restrict
access with a firewall.
"""

import json
import sys

REPLICAS = 2
UNSUPPORTED = (
    "build",
    "depends_on",
    "extra_hosts",
    "mem_limit",
    "pids_limit",
    "pull_policy",
    "restart",
    "security_opt",
)


def main() -> None:
    """Read the resolved Compose file from standard input and print the Swarm version."""
    if len(sys.argv) != 2 or sys.stdin.isatty():
        sys.exit("Usage: docker compose --file compose.prod.yaml config --format json | python3 deploy/swarm.py IMAGE")
    image = sys.argv[1]
    compose = json.load(sys.stdin)
    for service in compose["services"].values():
        service["image"] = image
        limits = {"memory": str(service.get("mem_limit", "512m")), "pids": service.get("pids_limit", 128)}
        for name in [name for name in service if name in UNSUPPORTED or service[name] is None]:
            del service[name]
        service["environment"] = {name: value for name, value in service["environment"].items() if value is not None}
        service["ports"] = [
            {"target": port["target"], "published": int(port["published"])} for port in service.get("ports", [])
        ]
        service["deploy"] = {
            "replicas": REPLICAS,
            "resources": {"limits": limits},
            # A new replica must answer before an old one stops; otherwise Swarm rolls back.
            "update_config": {"order": "start-first", "failure_action": "rollback", "delay": "5s"},
        }
        if service.get("secrets") and not service["environment"].get("HONEYCOMB_API_KEY_FILE"):
            del service["secrets"]
    used = any(service.get("secrets") for service in compose["services"].values())
    stack = {"version": "3.12", "services": compose["services"], "secrets": compose.get("secrets", {}) if used else {}}
    for secret in stack["secrets"].values():
        secret.pop("name", None)
    json.dump(stack, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
