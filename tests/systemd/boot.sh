#!/bin/sh
# Boots this machine's systemd on this machine's files, in namespaces that are there already: see lab.py.
# boot.sh FOLDER STATE CHECKOUT PYTHON PACKAGES VERSION HIERARCHY...
set -eu
folder=$1 state=$2 checkout=$3 python=$4 packages=$5 version=$6
shift 6

# Every write goes into memory, and is gone with the namespace.
mount -t tmpfs -o mode=755 lab "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" lab "$folder/root"
cd "$folder/root"

# An interpreter may live where a service must not look, such as in somebody's home.
case $python in /usr | /usr/local) ;; *) mount --bind -o ro "$python" usr/local ;; esac
venv=opt/paperloop/.venv
rm -rf opt/paperloop
mkdir -p opt/paperloop/bot $venv/bin "$venv/lib/python$version/site-packages"
mount --bind -o ro "$checkout/bot" opt/paperloop/bot
mount --bind -o ro "$packages" "$venv/lib/python$version/site-packages"
case $python in /usr) home=/usr/bin ;; *) home=/usr/local/bin ;; esac
echo "home = $home" > $venv/pyvenv.cfg
ln -s "$home/python$version" $venv/bin/python
cat > $venv/bin/paperloop << 'END'
#!/opt/paperloop/.venv/bin/python
import sys

sys.path.insert(0, "/opt/paperloop")
from bot.entry import main

main()
END
chmod 755 $venv/bin/paperloop
install -D -m 644 "$checkout/config/paperloop.toml" etc/paperloop/paperloop.toml
mkdir -p etc/systemd/system
rm -rf etc/systemd/system/* usr/lib/systemd/system/*.wants var/log/journal var/lib/private var/lib/paperloop*
install -m 644 "$checkout/systemd/paperloop.service" etc/systemd/system
# The tests read the ledgers as files: SQLite follows /proc/PID/root back to the machine's own root.
mkdir var/lib/private
mount --bind "$state" var/lib/private
mkdir usr/lib/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service usr/lib/systemd/system/sysinit.target.wants
echo "Storage=volatile" > etc/systemd/journald.conf
: > etc/fstab
: > etc/machine-id

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do cp -a "/dev/$node" dev; done
mkdir dev/shm dev/pts
ln -s pts/ptmx dev/ptmx
if [ "$1" = alone ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    for name in "$@"; do
        mkdir "sys/fs/cgroup/$name"
        case $name in
            unified) mount -t cgroup2 cgroup2 "sys/fs/cgroup/$name" ;;
            systemd) mount -t cgroup -o none,name=systemd cgroup "sys/fs/cgroup/$name" ;;
            *) mount -t cgroup -o "$name" cgroup "sys/fs/cgroup/$name" ;;
        esac
    done
fi

mkdir .before
pivot_root . .before
umount -l /.before
ldconfig
# What systemd mounts in a helper's namespace must show in its own; none of it is shared with the machine.
mount --make-rshared /
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=basic.target --show-status=no < /dev/null
