# S3 servers on loopback. To be sourced after setup.sh. What is started here ends with the script that calls `stop_s3`, which
# belongs into its EXIT trap; each script has its own server, port and bucket.

moto_version=5.2.5
s3s_version=0.14.1

# A server in memory that honours conditional writes, in the project's `.tools`.
need_moto() {
    local venv=$PWD/.tools/moto
    moto_server=$venv/bin/moto_server
    [ -e "$venv/moto-$moto_version" ] && return
    need python3 python3
    python3 -c 'import ensurepip, venv' 2> /dev/null || apt_install python3-venv
    need curl curl
    # Two scripts may come here at once.
    mkdir -p .tools
    exec 8> .tools/lock
    flock 8
    if [ ! -e "$venv/moto-$moto_version" ]; then
        say "installing moto $moto_version"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto_version"
        touch "$venv/moto-$moto_version"
    fi
    exec 8>&-
}

# A server that keeps objects as files; its create-if-absent is not atomic, so it is for one writer and for speed.
need_s3s() { need_cargo_tool s3s-fs "$s3s_version" --features binary; }

# start_s3 moto|s3s FOLDER: starts a server on a free port with the bucket `skylog`, and says so to all programs by the
# variables that the AWS tools know. FOLDER is for its log, and for the objects of s3s-fs.
start_s3() {
    local kind=$1 folder=$2 address=
    mkdir -p "$folder"
    export AWS_ACCESS_KEY_ID=skylog AWS_SECRET_ACCESS_KEY=loopback AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
    case $kind in
        moto)
            need_moto
            "$moto_server" -H 127.0.0.1 -p 0 > "$folder/server.log" 2>&1 &
            s3_pid=$!
            ;;
        s3s)
            need_s3s
            mkdir -p "$folder/objects/skylog"
            s3_port=$(free_port)
            s3s-fs --host 127.0.0.1 --port "$s3_port" --access-key "$AWS_ACCESS_KEY_ID" --secret-key "$AWS_SECRET_ACCESS_KEY" \
                "$folder/objects" > "$folder/server.log" 2>&1 &
            s3_pid=$!
            ;;
    esac
    for _ in $(seq 300); do
        kill -0 "$s3_pid" 2> /dev/null || { cat "$folder/server.log"; die "$kind does not start"; }
        [ "$kind" = s3s ] || s3_port=$(sed -n 's/.*Running on http:\/\/127.0.0.1:\([0-9]*\).*/\1/p' "$folder/server.log")
        if [ -n "$s3_port" ] && curl -s -o "$folder/answer" "http://127.0.0.1:$s3_port/"; then address=http://127.0.0.1:$s3_port; break; fi
        sleep 0.1
    done
    [ -n "$address" ] || die "$kind does not answer"
    export AWS_ENDPOINT_URL=$address
    if [ "$kind" = moto ]; then curl -sSf -o "$folder/answer" -X PUT "$address/skylog"; fi
}

# A port that is free now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

stop_s3() {
    [ -n "${s3_pid:-}" ] || return 0
    kill "$s3_pid" 2> /dev/null || true
    wait "$s3_pid" 2> /dev/null || true
    s3_pid=
}
