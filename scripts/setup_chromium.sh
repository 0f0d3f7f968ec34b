#!/bin/sh
# Chromium and its driver, in which the tests open the pages. Quick where they are there already.
# Without them and without the right to install them it fails with a line that says what to do; those tests are then skipped.
set -eu
if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then
    exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
    echo "no Chromium here: the tests of the pages will be skipped. As root on Debian: apt-get install chromium chromium-driver" >&2
    exit 1
fi
echo "installing Chromium for the tests of the pages ..."
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --yes --quiet=2 --no-install-recommends chromium chromium-driver > /dev/null
