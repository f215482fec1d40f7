#!/usr/bin/env bash
# `make deploy-check`: the systemd unit and the Kubernetes manifest, each by a tool of its own, and their settings by the host.
#
# Starts nothing. Sets up what is missing: Debian's systemd for its analyzer, and in a folder of its own the schemas of Kubernetes.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/deploy
mkdir -p "$work"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)

command -v systemd-analyze >/dev/null || { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends systemd; }
# As `make test` builds it, so that nothing is compiled twice.
cargo test --quiet --workspace --test binary --no-run

echo "deploy/jackfield.service"
# The analyzer looks for the binary where the unit has it; here it is the one just built.
sed "s#/usr/local/bin/jackfield#$PWD/target/debug/jackfield#" deploy/jackfield.service >"$work/jackfield.service"
systemd-analyze verify --man=no "$work/jackfield.service" 2>&1 | tee "$work/verify.log"
# It may warn and succeed all the same.
[ ! -s "$work/verify.log" ]
# In tenths; what is left is the network, which is its work, and memory for code, which compiled filters are.
systemd-analyze security --offline=true --threshold=14 --no-pager "$work/jackfield.service" | tail -1

echo "deploy/kubernetes.yaml"
python=$work/python
[ -x "$python/bin/kubernetes-validate" ] || {
    python3 -m venv "$python" && "$python/bin/pip" install --quiet kubernetes-validate==1.37.0
}
"$python/bin/kubernetes-validate" --strict deploy/kubernetes.yaml
"$python/bin/python" deploy/kubernetes_settings.py target/debug/jackfield "$work"
