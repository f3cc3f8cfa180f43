#!/usr/bin/env bash
# Runs `make test` as other processors would: networks trained anew, tests, strict nbval; a line a processor.
#
#   tests/processors.sh                 all
#   tests/processors.sh sse41-1 as-is-2 some, in this order
#
# A processor is imitated downwards only: by one with AVX-512 all three kinds differ, by one with AVX2 the first two
# are the same. Each works in a copy of the checkout in _build/processors/, its log beside it, and takes what
# `make test` takes, with SSE 4.1 twice as long and longer.
set -uo pipefail
cd "$(dirname "$0")/.."

settings() {
  case ${1%-*} in
    as-is) ;;
    avx2) echo ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ;;
    sse41) echo ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE ;;
    *) echo "unknown processor ${1%-*}; known are as-is, avx2 and sse41, each with -1 or -2 threads" >&2; return 1 ;;
  esac
}

failed=0 trained_kind= trained_in=
for cell in "${@:-as-is-1 as-is-2 avx2-1 avx2-2 sse41-1 sse41-2}"; do
  for name in $cell; do
    variables=$(settings "$name") || exit 2
    place=_build/processors/$name
    rm -rf "$place" && mkdir -p "$place/project"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$place/project"
    ln -s "$PWD/.venv" "$place/project/.venv"
    # Training takes one thread whatever the tests take: the networks of the other number of threads are the same.
    if [ "${name%-*}" = "$trained_kind" ]; then
      mkdir -p "$place/project/_build" && cp -rp "$trained_in/project/_build/networks" "$place/project/_build/"
    fi
    [ -d ../shared ] && ln -s "$(cd ../shared && pwd)" "$place/shared"
    start=$SECONDS
    # The copy's library and not the checkout's, which is what is installed.
    if env $variables PYTHONPATH="$PWD/$place/project" make -C "$place/project" test THREADS="${name##*-}" >"$place/log" 2>&1; then
      said=passed
      trained_kind=${name%-*} trained_in=$place
    else
      said="FAILED, see $place/log"
      failed=1
    fi
    echo "$name: $said, $(((SECONDS - start + 59) / 60)) min; $(grep -E '[0-9]+ (passed|failed|errors?).* in [0-9]' "$place/log" | tr -d = | paste -sd ';' -)"
  done
done
exit $failed
