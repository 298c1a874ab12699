"""Convert the production Compose file for Docker Swarm, which knows an older form of Compose files.

docker compose --file compose.prod.yaml config --format json | python3 deploy/swarm.py IMAGE >stack.json
docker stack deploy --compose-file stack.json NAME

IMAGE is one that every node has or can pull. Swarm publishes ports on every address of every node: keep others off
with a firewall.
"""

import json
import sys

REPLICAS = 2
NOT_FOR_SWARM = (
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
    """Read the resolved file from standard input, and print the one for Swarm."""
    if len(sys.argv) != 2 or sys.stdin.isatty():
        sys.exit("Usage: docker compose --file compose.prod.yaml config --format json | python3 deploy/swarm.py IMAGE")
    image = sys.argv[1]
    given = json.load(sys.stdin)
    for service in given["services"].values():
        service["image"] = image
        limits = {"memory": str(service.get("mem_limit", "512m")), "pids": service.get("pids_limit", 128)}
        for name in [each for each in service if each in NOT_FOR_SWARM or service[each] is None]:
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
    used = any(service.get("secrets") for service in given["services"].values())
    stack = {"version": "3.12", "services": given["services"], "secrets": given.get("secrets", {}) if used else {}}
    for secret in stack["secrets"].values():
        secret.pop("name", None)
    json.dump(stack, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
