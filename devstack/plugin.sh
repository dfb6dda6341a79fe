#!/bin/bash
#
# Kongming's DevStack plug-in: see README.rst in this folder.
#
# DevStack sources this file with a mode and a phase. Its own functions
# (iniset, run_process, ...) and variables are there then.
#
# shellcheck disable=SC2154  # they are DevStack's

_XTRACE_KONGMING=$(set +o | grep xtrace)
set +o xtrace

# is_kongming_enabled() - Whether any of the services runs on this node.
function is_kongming_enabled {
    [[ ,${ENABLED_SERVICES} =~ ,"kongming-" ]]
}

# is_kongming_control_enabled() - Whether this node has the API or a conductor.
function is_kongming_control_enabled {
    is_service_enabled kongming-api || is_service_enabled kongming-conductor
}

# kongming_bin_dir() - Where the commands were installed to.
function kongming_bin_dir {
    get_python_exec_prefix
}

# kongming_url() - The API's address for others.
function kongming_url {
    local protocol=$SERVICE_PROTOCOL
    if is_service_enabled tls-proxy; then
        protocol="https"
    fi
    echo "$protocol://$KONGMING_SERVICE_HOST:$KONGMING_SERVICE_PORT"
}

# check_kongming() - End early if what is enabled can't be.
function check_kongming {
    if is_service_enabled kongming-executor && is_service_enabled kongming-handler; then
        die $LINENO "kongming-executor and kongming-handler both place this host's guests:" \
            "disable one of them"
    fi
}

# install_kongming() - The program, and the command line of openstackclient.
function install_kongming {
    setup_develop "$KONGMING_DIR" compute,controller,mysql,postgresql
    if is_service_enabled kongming-api; then
        pip_install uwsgi
    fi
}

# install_kongming_hook() - What releases guests that arrive from other nodes.
function install_kongming_hook {
    if is_service_enabled n-cpu; then
        sudo install -D -m 0755 "$KONGMING_DIR/etc/libvirt/kongming-libvirt-hook" "$KONGMING_HOOK"
        # It looks for hooks only when it starts.
        restart_service libvirtd
    fi
}

# configure_kongming() - Write kongming.conf, and what Nova has to send.
function configure_kongming {
    sudo install -d -o "$STACK_USER" "$KONGMING_CONF_DIR" "$KONGMING_STATE_PATH"
    rm -f "$KONGMING_CONF"
    iniset "$KONGMING_CONF" DEFAULT state_path "$KONGMING_STATE_PATH"
    iniset "$KONGMING_CONF" DEFAULT debug "$ENABLE_DEBUG_LOG_LEVEL"
    iniset_rpc_backend kongming "$KONGMING_CONF"
    setup_logging "$KONGMING_CONF"
    if [[ -n "$KONGMING_RESERVED_CPUS" ]]; then
        iniset "$KONGMING_CONF" guard reserved_cpus "$KONGMING_RESERVED_CPUS"
    fi
    if is_kongming_control_enabled; then
        iniset "$KONGMING_CONF" database connection "$(database_connection_url kongming)"
        configure_keystone_authtoken_middleware "$KONGMING_CONF" kongming
    fi
    if is_service_enabled kongming-conductor || [[ "$KONGMING_TRIGGER" == "legacy" ]]; then
        _configure_kongming_nova
    fi
    if is_service_enabled kongming-api; then
        _configure_kongming_uwsgi
    fi
    if is_service_enabled kongming-handler; then
        _configure_kongming_handler
    fi
}

# _configure_kongming_nova() - How Nova's API is asked.
function _configure_kongming_nova {
    iniset "$KONGMING_CONF" nova auth_type password
    iniset "$KONGMING_CONF" nova auth_url "$KEYSTONE_SERVICE_URI"
    iniset "$KONGMING_CONF" nova username kongming
    iniset "$KONGMING_CONF" nova password "$SERVICE_PASSWORD"
    iniset "$KONGMING_CONF" nova user_domain_name "$SERVICE_DOMAIN_NAME"
    iniset "$KONGMING_CONF" nova project_name "$SERVICE_PROJECT_NAME"
    iniset "$KONGMING_CONF" nova project_domain_name "$SERVICE_DOMAIN_NAME"
    iniset "$KONGMING_CONF" nova region_name "$REGION_NAME"
    if is_service_enabled tls-proxy; then
        iniset "$KONGMING_CONF" nova cafile "$SSL_BUNDLE_FILE"
    fi
}

# _configure_kongming_uwsgi() - The API's WSGI server.
function _configure_kongming_uwsgi {
    local listen="0.0.0.0:$KONGMING_SERVICE_PORT"
    if is_service_enabled tls-proxy; then
        listen="127.0.0.1:$KONGMING_SERVICE_PORT_INT"
        iniset "$KONGMING_CONF" oslo_middleware enable_proxy_headers_parsing True
    fi
    rm -f "$KONGMING_UWSGI_CONF"
    cp "$KONGMING_DIR/etc/kongming/kongming-api-uwsgi.ini" "$KONGMING_UWSGI_CONF"
    iniset "$KONGMING_UWSGI_CONF" uwsgi http-socket "$listen"
    iniset "$KONGMING_UWSGI_CONF" uwsgi env "OS_KONGMING_CONFIG_FILES=$KONGMING_CONF"
    iniset "$KONGMING_UWSGI_CONF" uwsgi processes "$API_WORKERS"
}

# _configure_kongming_handler() - What Nova sends, and where it is listened for.
function _configure_kongming_handler {
    iniset "$KONGMING_CONF" notification_handler trigger "$KONGMING_TRIGGER"
    iniset "$KONGMING_CONF" oslo_messaging_notifications transport_url "$(get_transport_url)"
    iniset "$KONGMING_CONF" oslo_messaging_notifications driver messagingv2
    # nova-compute's own file is made of this one when it is started.
    iniset "$NOVA_CONF" notifications notification_format both
    iniset "$NOVA_CONF" notifications notify_on_state_change vm_state
    iniset "$NOVA_CONF" oslo_messaging_notifications driver messagingv2
}

# create_kongming_accounts() - The service user, and the entry in the catalogue.
function create_kongming_accounts {
    # It asks Nova for the servers of all projects; a role of its own and three
    # policies of Nova's would do, too.
    create_service_user kongming admin
    if is_service_enabled kongming-api; then
        get_or_create_service kongming kongming "Kongming: placement of guests"
        get_or_create_endpoint kongming "$REGION_NAME" "$(kongming_url)"
    fi
}

# init_kongming() - The database.
function init_kongming {
    # On the node that has the database server only.
    # shellcheck disable=SC2086  # it is a list
    if is_kongming_control_enabled && is_service_enabled $DATABASE_BACKENDS; then
        recreate_database kongming
        "$(kongming_bin_dir)/kongming-manage" --config-file "$KONGMING_CONF" db sync
    fi
}

# start_kongming() - All services of this node, those first that others talk to.
function start_kongming {
    local bin
    bin=$(kongming_bin_dir)
    run_process kongming-conductor "$bin/kongming-conductor --config-file $KONGMING_CONF"
    if is_service_enabled kongming-api; then
        _start_kongming_api
    fi
    # These two need libvirt's socket, as nova-compute does.
    run_process kongming-executor \
        "$bin/kongming-executor --config-file $KONGMING_CONF" "$LIBVIRT_GROUP"
    run_process kongming-handler \
        "$bin/kongming-notification-handler --config-file $KONGMING_CONF" "$LIBVIRT_GROUP"
}

# _start_kongming_api() - Start it, and return when it answers.
function _start_kongming_api {
    if is_service_enabled tls-proxy; then
        start_tls_proxy kongming '*' "$KONGMING_SERVICE_PORT" \
            127.0.0.1 "$KONGMING_SERVICE_PORT_INT"
    fi
    run_process kongming-api \
        "$(which uwsgi) --procname-prefix kongming --ini $KONGMING_UWSGI_CONF"
    if ! wait_for_service "$SERVICE_TIMEOUT" "$(kongming_url)/healthcheck"; then
        die $LINENO "kongming-api did not start"
    fi
}

# stop_kongming() - End all services of this node. The guests stay as they are.
function stop_kongming {
    local service
    for service in kongming-handler kongming-executor kongming-api kongming-conductor; do
        stop_process $service
    done
}

# cleanup_kongming() - Remove what is left.
function cleanup_kongming {
    sudo rm -rf "$KONGMING_CONF_DIR" "$KONGMING_STATE_PATH" "$KONGMING_HOOK"
}

if is_kongming_enabled; then
    case "$1 $2" in
        "stack pre-install")
            check_kongming
            ;;
        "stack install")
            echo_summary "Installing Kongming"
            install_kongming
            ;;
        "stack post-config")
            echo_summary "Configuring Kongming"
            configure_kongming
            install_kongming_hook
            if is_service_enabled key; then
                create_kongming_accounts
            fi
            ;;
        "stack extra")
            echo_summary "Starting Kongming"
            init_kongming
            start_kongming
            ;;
        "unstack "*)
            stop_kongming
            ;;
        "clean "*)
            cleanup_kongming
            ;;
    esac
fi

$_XTRACE_KONGMING
