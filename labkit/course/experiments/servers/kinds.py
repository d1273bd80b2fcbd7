"""What each of the four servers is: its program, its port, its configuration, and what is in its folder at first.

A server sees its folder as /srv, and everything it writes goes there. All listen on 127.0.0.1 alone, on ports that need
no privilege; below 1024 they are for root, for historical reasons.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGQUIT, SIGTERM, Signals

#: Who the servers are: `server` in their trees' /etc/passwd. None needs to be root, and PostgreSQL refuses to be.
UID = 26


@dataclass(frozen=True)
class Setting:
    """What may differ from one start to the next."""

    port: int
    backend_port: int  #: web: the application's; application: the database's
    site: str = ""  #: web: the `server` block of nginx's configuration


@dataclass(frozen=True)
class Kind:
    """One of the four."""

    name: str  #: also of the root filesystem
    program: str
    port: int
    backend_port: int
    log: str  #: where it notes what it was asked, in its folder
    errors: str  #: where it says what troubles it
    stop: Signals  #: asks it to end in good order
    files: Callable[[Setting], dict[str, str]]
    command: Callable[[Setting], list[str]]
    before: Callable[[], list[list[str]]] = list  #: commands to run before the first start
    data: str = ""  #: the folder in its own in which it keeps what it is given


# File: vsftpd.conf(5). It speaks FTP, and lets everybody in as "anonymous"


def _file_files(setting: Setting) -> dict[str, str]:
    settings = f"""listen=YES
listen_address=127.0.0.1
listen_port={setting.port}
background=NO
run_as_launching_user=YES
anonymous_enable=YES
ftp_username=server
anon_root=/srv/files
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
anon_umask=022
write_enable=YES
allow_writeable_chroot=YES
no_anon_password=YES
secure_chroot_dir=/srv/empty
pasv_address=127.0.0.1
connect_from_port_20=NO
xferlog_enable=YES
dual_log_enable=YES
log_ftp_protocol=YES
vsftpd_log_file=/srv/log/ftp.log
xferlog_file=/srv/log/transfer.log
use_localtime=YES
seccomp_sandbox=NO
"""
    return {"vsftpd.conf": settings, "files/welcome.txt": "Welcome to the file server.\n", "empty/": ""}


FILE = Kind(
    name="file",
    program="vsftpd",
    port=2121,
    backend_port=0,
    log="log/ftp.log",
    errors="log/errors.log",
    stop=SIGTERM,
    files=_file_files,
    command=lambda setting: ["/usr/sbin/vsftpd", "/srv/vsftpd.conf"],
    data="files",
)

# Database: PostgreSQL


def _database_command(setting: Setting) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": setting.port,
        "unix_socket_directories": "",
        "log_statement": "all",
        "log_line_prefix": "%m [%p] %a ",
        "log_connections": "on",
        "max_connections": 20,
        "shared_buffers": "16MB",
        "dynamic_shared_memory_type": "mmap",  # in its folder, not in the machine's /dev/shm
        "jit": "off",
        "autovacuum": "off",
        "max_wal_senders": 0,
        "wal_level": "minimal",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return ["/usr/bin/postgres", "-D", "/srv/data", *options]


DATABASE = Kind(
    name="database",
    program="postgres",
    port=5432,
    backend_port=0,
    log="log/errors.log",
    errors="log/errors.log",
    stop=SIGINT,  # "fast": clients are sent away, what is done is written down. postgres(1)
    files=lambda setting: {},
    command=_database_command,
    data="data",
    before=lambda: [
        [
            "/usr/bin/initdb",
            "--pgdata=/srv/data",
            "--username=shop",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--wal-segsize=1",  # MB: its log grows by these
            "--no-instructions",
        ]
    ],
)

# Web: nginx

SITE = """server {{
    listen 127.0.0.1:{port};
    root /srv/pages;

    location /app/ {{
        proxy_pass http://127.0.0.1:{backend_port}/;
        proxy_set_header X-Request-ID $id;
    }}
}}
"""


def _web_files(setting: Setting) -> dict[str, str]:
    site = setting.site or SITE.format(port=setting.port, backend_port=setting.backend_port)
    paths = "\n".join(
        f"    {name}_temp_path /srv/run/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"""daemon off;
worker_processes 2;
error_log /srv/log/errors.log notice;
pid /srv/run/nginx.pid;
events {{ worker_connections 100; }}
http {{
    # A request keeps the id it came with, and gets one where it has none.
    map $http_x_request_id $id {{
        ""      $request_id;
        default $http_x_request_id;
    }}
    log_format ids '$time_iso8601 $id [$pid] "$request" $status upstream=$upstream_addr';
    access_log /srv/log/access.log ids;
    add_header X-Request-ID $id always;
    types {{ text/html html; text/plain txt; }}
    keepalive_timeout 0;
{paths}
    include /srv/site.conf;
}}
"""
    page = "<!doctype html>\n<title>Shop</title>\n<p>A page of the web server.</p>\n"
    return {"nginx.conf": main, "site.conf": site, "pages/index.html": page, "run/": ""}


WEB = Kind(
    name="web",
    program="nginx",
    port=8080,
    backend_port=8000,
    log="log/access.log",
    errors="log/errors.log",
    stop=SIGQUIT,  # requests that are under way are finished. nginx(8)
    files=_web_files,
    command=lambda setting: ["/usr/sbin/nginx", "-e", "/srv/log/errors.log", "-c", "/srv/nginx.conf"],
)

# Application: gunicorn, which runs /opt/shop.py of its root filesystem


def _application_command(setting: Setting) -> list[str]:
    return [
        *("/usr/bin/python3", "/usr/bin/gunicorn", "--chdir=/opt", "--workers=2"),
        *(f"--bind=127.0.0.1:{setting.port}", "--worker-tmp-dir=/srv/run"),
        *("--access-logfile=/srv/log/access.log", "--error-logfile=/srv/log/errors.log"),
        '--access-logformat=%(t)s %({x-request-id}i)s %(p)s "%(r)s" %(s)s',
        "shop:application",
    ]


def environment(setting: Setting) -> dict[str, str]:
    """The environment of a server: nothing of the caller's."""
    return {
        "PATH": "/usr/sbin:/usr/bin",
        "HOME": "/srv",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DATABASE": f"host=127.0.0.1 port={setting.backend_port} user=shop dbname=shop connect_timeout=10",
    }


APPLICATION = Kind(
    name="application",
    program="gunicorn",
    port=8000,
    backend_port=5432,
    log="log/access.log",
    errors="log/errors.log",
    stop=SIGTERM,  # requests that are under way are finished
    files=lambda setting: {"run/": ""},
    command=_application_command,
)

KINDS = {kind.name: kind for kind in (FILE, DATABASE, APPLICATION, WEB)}  # in the order in which they need each other


def fill(kind: Kind, setting: Setting, folder: Path) -> None:
    """Write the first content of a server's folder."""
    for name, text in {"log/": "", **kind.files(setting)}.items():
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(text)
    for name in (kind.log, kind.errors):
        os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o644))
