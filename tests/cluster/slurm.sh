#!/usr/bin/env bash
# Trains a grid through a Slurm of one node, on this machine alone, and compares it with training without Slurm.
#
#     tests/cluster/slurm.sh      as root on Debian; installs slurm-wlm and munge, and leaves them installed
#
# PYTHON names another Python than .venv/bin/python. Exit status 0: all is well; 2: refused, nothing was touched.
set -euo pipefail
cd "$(dirname "$0")/../.."

CONF=/etc/slurm/slurm.conf # jobs read this one: the executor does not hand SLURM_CONF on to them
CLUSTER=interp-lib-trial
GRID=_build/cluster
ALONE=_build/cluster-alone
NAME=digits-small-%s-s0-digits

say() { echo "$(date +%T) $*"; }
refuse() { echo "$0: $*; nothing was touched" >&2 && exit 2; }
fail() { say "FAILED: $*" && exit 1; }
network() { printf "%s/$NAME.%s" "$1" "$2" "$3"; }

[ "$(id -u)" = 0 ] || refuse "needs root, to install and start Slurm"
command -v apt-get >/dev/null || refuse "needs apt-get, to install Slurm"
if [ -e $CONF ] && ! grep -qx "ClusterName=$CLUSTER" $CONF; then refuse "$CONF belongs to another Slurm"; fi
if pidof slurmctld slurmd >/dev/null; then refuse "a Slurm is running on this machine"; fi
if [ -z "${PYTHON:-}" ]; then PYTHON=.venv/bin/python && [ -x $PYTHON ] || PYTHON=python3; fi
"$PYTHON" -c 'import interp_lib, snakemake' || refuse "$PYTHON lacks requirements.txt; set PYTHON"

STATE=$(mktemp -d)
DAEMONS=()
clean_up() {
  status=$?
  trap - EXIT
  for _ in {1..30}; do
    [ -n "$(squeue --noheader 2>/dev/null)" ] || break
    scancel --quiet --user=root || true
    sleep 1
  done
  for pid in "${DAEMONS[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null
  [ $status = 0 ] || tail -n 20 "$STATE"/*.log
  rm -rf $CONF "$STATE"
  say "stopped the daemons; exit status $status"
  exit $status
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say "installing"
if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge &>"$STATE/apt.log"
fi
"$PYTHON" -m pip install --quiet -r tests/cluster/requirements.txt

HOST=$(hostname -s)
mkdir -p "$(dirname $CONF)"
# Every daemon listens on the loopback only. Memory is counted because the executor always asks for it. No cgroups:
# a container may not make them. Without accounting a job is known for MinJobAge seconds after its end.
cat >$CONF <<END
ClusterName=$CLUSTER
SlurmctldHost=$HOST(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
SlurmUser=root
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
PartitionName=trial Nodes=$HOST Default=YES MaxTime=60 State=UP
END

if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
  install -d -o munge -g munge -m 755 /run/munge
  setpriv --reuid munge --regid munge --init-groups munged --foreground >"$STATE/munged.log" 2>&1 &
  DAEMONS+=($!)
fi
slurmctld -D >"$STATE/slurmctld.log" 2>&1 &
DAEMONS=($! "${DAEMONS[@]}")
slurmd -D >"$STATE/slurmd.log" 2>&1 &
DAEMONS=($! "${DAEMONS[@]}")
for _ in {1..30}; do
  [ "$(sinfo --noheader --format=%T 2>/dev/null)" != idle ] || break
  sleep 1
done
say "$(sinfo --version) with $(sinfo --noheader --format='partition %P, node %n %T, %c CPUs, %m MB')"
sinfo --noheader --format=%T | grep -qx idle || fail "the node did not come up"

rm -rf $GRID $ALONE
# One job is cancelled midway: its network must come out all the same.
(
  checkpoint=$(network $GRID adv checkpoint)
  until [ -e "$checkpoint" ]; do sleep 1; done
  sleep 8
  job=$(squeue --noheader --format='%i %k' | awk '/adv/ {print $1}')
  say "cancelling job $job" && scancel "$job"
  while squeue --noheader --jobs="$job" 2>/dev/null | grep -q .; do sleep 1; done
  say "it left a checkpoint of step $("$PYTHON" -c "import torch; print(torch.load('$checkpoint')['step'])") of 1380"
) &
DAEMONS=($! "${DAEMONS[@]}")
# Whatever the environment says: that a job has its rule's threads is to be seen.
env -u OMP_NUM_THREADS "$PYTHON" -m snakemake --profile tests/cluster/profile --jobs 2 --quiet rules host \
  --default-resources slurm_partition=trial slurm_account=trial \
  --slurm-status-command squeue --slurm-init-seconds-before-status-checks 5 --seconds-between-status-checks 5 \
  grid --config dataset=digits schedule=digits methods=Normal,Adv,Int seeds=1 folder=$GRID 2>&1 |
  grep --line-buffered -vE '^(Select jobs|Execute |Using |Building |Provided |Cleaning |Both |\[|$)' ||
  fail "the grid did not come out"

say "the jobs, as Slurm saw them"
squeue --states=all --sort=i --format='%5i %10T %5C %11m %6M %k' | tee "$STATE/jobs"
[ "$(grep -c COMPLETED "$STATE/jobs")" = 3 ] || fail "three jobs should have been completed"
[ "$(grep -c CANCELLED "$STATE/jobs")" = 1 ] || fail "one job should have been cancelled"
for method in normal adv int; do
  [ -s "$(network $GRID $method safetensors)" ] || fail "no network of $method"
  grep -q '"device": .* 1 threads"' "$(network $GRID $method json)" || fail "$method did not have its rule's one thread"
done

for method in Normal Adv; do
  say "training $method without Slurm"
  OMP_NUM_THREADS=1 "$PYTHON" -m interp_lib train --dataset digits --method $method --out $ALONE
  cmp "$(network $GRID ${method,,} safetensors)" "$(network $ALONE ${method,,} safetensors)" || fail "$method differs"
  say "$method: the same bytes with and without Slurm"
done
