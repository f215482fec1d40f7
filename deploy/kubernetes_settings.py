"""What the manifest gives the host, checked by the host: `jackfield check` with its settings, variables and secrets in their places.

Run by check.sh with the binary and a folder to work in. Fails if a mount, a port or a key of one object does not fit the others.
"""

import pathlib
import subprocess
import sys

import yaml

binary, work = sys.argv[1], pathlib.Path(sys.argv[2])
objects = {part["kind"]: part for part in yaml.safe_load_all(open("deploy/kubernetes.yaml"))}
pod = objects["StatefulSet"]["spec"]["template"]["spec"]
(container,) = pod["containers"]

settings = work / "jackfield.toml"
settings.write_text(objects["ConfigMap"]["data"]["jackfield.toml"])
secret = work / "secret"
secret.write_text("of-the-manifest\n")
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
variables = {}
for variable in container["env"]:
    assert variable["value"].startswith(mounts["secrets"] + "/"), f"no secret is mounted at {variable}"
    variables[variable["name"]] = str(secret)
assert container["args"] == ["run", "--config", mounts["settings"] + "/jackfield.toml"], container["args"]
subprocess.run([binary, "check", "--config", str(settings)], env=variables, check=True)

volumes = {volume["name"] for volume in pod["volumes"]}
volumes |= {claim["metadata"]["name"] for claim in objects["StatefulSet"]["spec"]["volumeClaimTemplates"]}
assert volumes == set(mounts), f"volumes {volumes}, mounts {set(mounts)}"
image = pathlib.Path("Dockerfile").read_text()
uid = pod["securityContext"]["runAsUser"]
(port,) = container["ports"]
for line in (f"USER {uid}:{uid}", f"VOLUME {mounts['journal']}", f"EXPOSE {port['containerPort']}"):
    assert line in image, f"the image has another {line}"
