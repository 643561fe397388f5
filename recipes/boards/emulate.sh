#!/usr/bin/env bash
# streamasr as a new user of a 64-bit ARM board installs it, under emulation: recipes/boards/emulate.sh [FOLDER]
# Debian's arm64 Python and PyPI's aarch64 wheels go into FOLDER (default work/arm64); qemu-user runs them. It then
# transcribes the sample there and here and compares the two. Correctness, not speed.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$(realpath -m "${1:-work/arm64}")
mkdir -p "$root/lists/partial" "$root/debs" "$root/wheels" "$root/site"

command -v qemu-aarch64 >/dev/null || apt-get -qq install -y --no-install-recommends qemu-user
apt=(-oAPT::Architecture=arm64 -oAPT::Architectures=arm64 "-oDir::State::Lists=$root/lists" -oAPT::Sandbox::User=root)
packages=(libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1
    libncursesw6 libtinfo6 libreadline8 libcrypt1 libdb5.3 libnsl2 libtirpc3 python3.11-minimal
    libpython3.11-minimal libpython3.11-stdlib)
if [ ! -e "$root/usr/bin/python3.11" ]; then
    apt-get -qq "${apt[@]}" update
    (cd "$root/debs" && apt-get -qq "${apt[@]}" download "${packages[@]}")
    for deb in "$root"/debs/*.deb; do dpkg -x "$deb" "$root"; done
fi

python=${PYTHON:-python3}
$python -m pip wheel --quiet --no-deps --wheel-dir "$root/wheels" .
$python -m pip install --quiet --upgrade --target "$root/site" --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --python-version 3.11 --only-binary :all: \
    "$root"/wheels/streamasr-*.whl

# ONNX Runtime asks /proc/cpuinfo which processor it is on, and crashes over the host's: that of a Raspberry Pi 4.
mkdir -p "$root/proc"
for core in 0 1 2 3; do
    printf 'processor\t: %s\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n' $core
    printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
done >"$root/proc/cpuinfo"

arm() { PYTHONPATH=$root/site PYTHONHOME=$root/usr qemu-aarch64 -cpu cortex-a72 -L "$root" "$root/usr/bin/python3.11" "$@"; }
arm -c 'import platform; print("emulated:", platform.machine(), platform.python_version())'
status=0
for options in "" "--greedy" "--graph fp32 --greedy"; do
    # shellcheck disable=SC2086
    there=$(arm -m streamasr transcribe tests/data/sample.wav --format ctm $options)
    # shellcheck disable=SC2086
    here=$($python -m streamasr transcribe tests/data/sample.wav --format ctm $options)
    if [ "$(cut -d' ' -f1-5 <<<"$there")" = "$(cut -d' ' -f1-5 <<<"$here")" ]; then
        echo "transcribe $options: the same words and times as here"
    else
        echo "transcribe $options: differs"
        diff <(echo "$there") <(echo "$here") || status=1
    fi
done
exit $status
