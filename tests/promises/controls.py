"""Promises about threats (T), reliability (R) and security (S), and the tests that prove them. Data; see `requirements.py`."""

from __future__ import annotations

from promises.shape import (
    API,
    APIS,
    CALLS,
    CLUSTER,
    CONTROL,
    CRASH,
    EGRESS,
    HOSTILE,
    HTTP,
    ISOLATION,
    JOURNEY,
    OPERATING,
    PACKAGING,
    PROBED,
    SHIM,
    SIM,
    TENANCY,
    TOOLS,
    USAGE,
    Row,
)

_APPLIED, _SOURCES, _INSTALLED = (CLUSTER.format(name) for name in ("operator", "sources", "installed"))
_OBJECTS, _CHART = OPERATING.format("objects"), PACKAGING.format("chart")
_NO_SETTING = f"{_OBJECTS}::test_a_missing_setting_is_named"

ROWS: dict[str, Row] = {
    "T1": Row(
        "nobody drives another's session or response by its id",
        (
            f"{TENANCY.format('control_routes')}::test_a_foreign_object_is_a_404",
            f"{TENANCY.format('data_routes')}::test_a_foreign_response_is_a_404_on_every_route",
            f"{TENANCY.format('data_routes')}::test_every_verb_of_the_table_is_attacked",
            f"{TENANCY.format('callers')}::test_a_key_for_some_agents_finds_no_other",
            f"{_APPLIED}::test_one_name_in_the_namespaces_of_two_tenants_stays_apart",
        ),
    ),
    "T2": Row(
        "the caller never chooses the upstream",
        (
            f"{EGRESS.format('rules')}::test_no_literal_address_is_a_host",
            f"{EGRESS.format('rules')}::test_no_address_but_a_public_one_is_connected_to",
            f"{HTTP.format('invocations')}::test_only_listed_headers_reach_the_agent",
            f"{CALLS}::test_places_that_nobody_named_are_not_connected_to",
            f"{CALLS}::test_metadata_addresses_are_refused_though_somebody_named_them",
            f"{CALLS}::test_a_server_that_redirects_is_not_followed",
            f"{EGRESS.format('addresses')}::test_no_form_of_an_address_is_dialled",
            f"{EGRESS.format('addresses')}::test_a_redirect_leads_nowhere",
        ),
    ),
    "T3": Row(
        "labels and annotations are the operator's: what others write there is not passed on, and not believed",
        (
            f"{OPERATING.format('agents')}::test_no_label_and_no_annotation_of_a_persons_reaches_what_is_made",
            f"{OPERATING.format('machine')}::test_a_pod_whose_marks_are_not_what_its_operator_signed_is_no_sandbox",
            f"{OPERATING.format('marks')}::test_a_note_that_is_not_of_this_claims_agent_and_tenant_is_none",
            f"{API.format('operator')}::test_a_pod_whose_label_was_taken_off_is_replaced_and_does_not_run_on_beside_its_successor",
            f"{API.format('operator')}::test_labels_that_were_taken_off_claims_are_put_back_and_cost_no_session_its_files",
        ),
        lacking="an admission policy: who may write pods in an agents' namespace can have one that the operator ends, or policies select",
    ),
    "T4": Row(
        "one reading of path and Host",
        (
            "unit/gateway/test_inbound.py::test_every_form_of_an_address_means_the_same",
            "unit/gateway/test_inbound.py::test_classification_never_fails_and_never_lets_a_bad_tail_through",
            f"{HTTP.format('limits')}::test_a_foreign_host_is_refused_on_a_loopback_listener",
        ),
    ),
    "T5": Row(
        "no request smuggling",
        (
            f"{HTTP.format('smuggling')}::test_an_ambiguous_request_is_refused_and_nothing_behind_it_served",
            f"{HTTP.format('smuggling')}::test_there_are_at_least_sixty_vectors",
            f"{SHIM.format('server')}::test_an_ambiguous_request_is_refused_and_never_served",
        ),
        lacking="a differential run against other servers, and a fuzzer",
    ),
    "T6": Row(
        "no header smuggled into a sandbox",
        (
            f"{HTTP.format('invocations')}::test_only_listed_headers_reach_the_agent",
            "unit/sandbox/test_prompt.py::test_a_caller_cannot_set_what_the_platform_says",
            "unit/sandbox/test_prompt.py::test_a_relay_loses_what_belongs_to_one_hop_or_to_the_platform",
        ),
    ),
    "T7": Row(
        "nothing leaves but to declared hosts",
        (
            f"{HOSTILE.format('ways_out')}::test_no_byte_gets_out",
            f"{HOSTILE.format('reach')}::test_through_the_door_only_declared_public_hosts_are_reached",
            f"{HOSTILE.format('reach')}::test_no_other_host_is_reached_by_address",
            f"{EGRESS.format('proxy')}::test_a_target_that_is_not_listed_is_403_and_says_what_to_add",
            f"{EGRESS.format('rules')}::test_no_host_is_read_in_two_ways",
            f"{EGRESS.format('proxy')}::test_tls_to_the_host_of_the_tunnel_passes_and_to_another_does_not",
            f"{EGRESS.format('proxy')}::test_a_session_sends_and_receives_so_many_bytes_an_hour_and_not_one_more",
            "unit/egress/test_hello.py::test_whatever_does_not_name_the_host_in_the_clear_does_not_pass",
            f"{_APPLIED}::test_a_sandbox_reaches_the_gateway_and_nothing_else",
            f"{_INSTALLED}::test_a_sandbox_reaches_two_ports_of_the_gateways_and_nothing_else",
            f"{_SOURCES}::test_a_build_reaches_only_the_gateway",
        ),
    ),
    "T8": Row(
        "no credential inside a sandbox, or in what is kept and printed",
        (
            f"{HOSTILE.format('credentials')}::test_no_credential_is_found_inside",
            f"{HOSTILE.format('credentials')}::test_no_credential_is_found_while_a_turn_runs",
            f"{HOSTILE.format('credentials')}::test_no_credential_lies_in_what_the_platform_keeps_or_prints",
            f"{HOSTILE.format('canaries')}::test_servers_are_shown_the_credentials_and_what_they_repeat_is_hidden",
            f"{HOSTILE.format('canaries')}::test_an_agent_that_used_them_finds_none_in_all_it_can_read",
            f"{HOSTILE.format('canaries')}::test_nothing_that_answers_at_the_shims_door_tells_one",
            f"{HOSTILE.format('canaries')}::test_the_shims_token_and_secret_are_nowhere_an_agent_looks",
            f"{CALLS}::test_a_server_that_repeats_its_key_does_not_tell_it",
            f"{JOURNEY.format('models')}::test_an_agent_sees_no_key_and_its_files_and_the_platforms_hold_none",
            f"{CALLS}::test_the_key_reaches_the_provider_and_nobody_else",
            f"{_INSTALLED}::test_a_model_is_asked_with_the_secrets_key_and_with_the_next_once_it_changed",
            f"{JOURNEY.format('tools')}::test_an_agent_sees_no_credential_and_its_files_and_the_platforms_hold_none",
            f"{JOURNEY.format('stdio_tools')}::test_a_secret_is_in_the_program_and_nowhere_else",
            f"{OPERATING.format('program_pods')}::test_nothing_secret_stands_in_a_programs_objects",
            f"{TOOLS}::test_a_server_is_opened_by_the_gateway_and_what_it_says_of_that_is_hidden",
            f"{_OBJECTS}::test_only_the_shim_sees_token_configuration_and_the_whole_volume",
            f"{_APPLIED}::test_an_applied_agent_answers_in_a_pod_of_its_own",
            f"{_SOURCES}::test_a_build_reaches_only_the_gateway",
        ),
        lacking="a pod's token lasts an hour, of the fifteen minutes",
    ),
    "T9": Row(
        "an agent cannot pose as its shim, nor speak at the sandbox port",
        (
            f"{HOSTILE.format('impersonation')}::test_the_sandbox_port_takes_no_word_without_a_token_of_its_own",
            f"{HOSTILE.format('impersonation')}::test_a_shims_socket_answers_only_to_its_secret",
            f"{HOSTILE.format('impersonation')}::test_the_door_of_the_shim_cannot_be_taken",
            f"{CALLS}::test_an_older_attempt_and_a_foreign_sandbox_are_told_no",
            f"{HTTP.format('pod_identity')}::test_a_descriptor_alone_is_refused_and_so_is_one_with_anothers_pod_token",
            f"{EGRESS.format('proxy')}::test_where_sandboxes_are_pods_the_pods_token_is_needed_and_goes_no_further",
            f"{SHIM.format('door')}::test_in_a_pod_the_pods_token_goes_with_every_connection_and_is_never_the_agents",
            "unit/gateway/test_pod_tokens.py::test_the_token_never_chooses_how_it_is_verified",
            "unit/gateway/test_pod_tokens.py::test_a_pod_proves_its_own_sandbox_in_its_own_tenants_namespace",
        ),
    ),
    "T12": Row(
        "no escape, no sideways movement: namespaces, no capabilities, seccomp, read-only root",
        (
            f"{ISOLATION.format('hostile')}::test_no_privilege_is_left_and_none_can_be_gained",
            f"{ISOLATION.format('hostile')}::test_there_is_no_network_but_its_own_loopback",
            f"{HOSTILE.format('reach')}::test_the_hosts_ports_and_sockets_are_not_there",
            "unit/local/test_launcher.py::test_the_filter_refuses_exactly_its_list",
            f"{_OBJECTS}::test_both_containers_pass_restricted_pod_security",
            f"{OPERATING.format('builds')}::test_a_builds_pod_is_closed_bounded_and_no_sandbox",
            f"{OPERATING.format('program_pods')}::test_a_programs_pod_is_closed_bounded_and_no_sandbox",
            f"{OPERATING.format('program_pods')}::test_only_gateways_reach_a_program_and_it_reaches_nothing",
            f"{CLUSTER.format('hand_made_pod')}::test_a_session_lives_in_a_pod",
            f"{_APPLIED}::test_a_sandbox_reaches_the_gateway_and_nothing_else",
            f"{_INSTALLED}::test_a_sandbox_reaches_two_ports_of_the_gateways_and_nothing_else",
        ),
        lacking="no profile that requires a RuntimeClass",
    ),
    "T13": Row(
        "no other workspace is mounted",
        (
            f"{HOSTILE.format('reach')}::test_no_file_of_another_session_is_seen",
            "unit/local_provider/test_volume_store.py::test_a_volume_has_one_writer_at_a_time",
            f"{_OBJECTS}::test_only_the_shim_sees_token_configuration_and_the_whole_volume",
            f"{_APPLIED}::test_an_applied_agent_answers_in_a_pod_of_its_own",
        ),
    ),
    "T14": Row(
        "a checkpoint is stolen or altered by nobody unseen",
        (
            "component/files/test_checkpoint_port.py::test_another_tenants_sandbox_finds_nothing_of_it",
            "component/files/test_checkpoint_port.py::test_a_sandbox_that_holds_no_session_stores_and_reads_nothing",
            "component/files/test_checkpoint_store.py::test_an_altered_pointer_or_anothers_counts_for_nothing_and_the_older_one_stands",
            "component/files/test_checkpoint_store.py::test_a_part_that_was_altered_or_removed_is_found",
            "component/checkpoint/test_hostile.py::test_every_flipped_bit_of_a_pack_is_refused",
            "component/checkpoint/test_hostile.py::test_a_link_that_appears_on_the_way_is_not_followed",
        ),
        lacking="credentials of the store for each tenant: gateways hold one for all",
    ),
    "T16": Row(
        "what a server says of its tools is checked, bounded, and where it is pinned held back when it changes",
        (
            f"{TOOLS}::test_a_pinned_definition_that_changes_is_held_back_until_it_is_approved",
            f"{TOOLS}::test_a_call_of_a_pinned_tool_asks_for_the_definitions_that_nobody_has_listed",
            f"{TOOLS}::test_definitions_that_are_none_are_left_out_and_the_rest_counts",
            f"{TOOLS}::test_what_the_manifest_hides_and_renames",
            f"{APIS}::test_references_out_of_a_document_are_not_followed",
            f"{APIS}::test_what_opens_the_api_is_not_sent_to_another_host_that_has_its_document",
            f"{APIS}::test_a_document_that_changes_is_seen_and_a_pinned_tool_of_it_held_back",
            "unit/tools/test_tools.py::test_the_longest_prefix_has_the_name_and_nobody_takes_anothers",
        ),
        lacking="a tool is pinned by its manifest naming the digest; without that it is not",
    ),
    "T17": Row(
        "the operator's rights are named one by one, in its namespaces; nobody else of the platform has any",
        (
            f"{_CHART}::test_rights_are_named_one_by_one_and_reach_no_shell_and_of_secrets_only_named_ones",
            f"{_CHART}::test_only_the_operator_has_rights_and_a_token",
            f"{_APPLIED}::test_an_applied_agent_answers_in_a_pod_of_its_own",
            f"{_INSTALLED}::test_an_agent_is_applied_and_called",
            f"{_INSTALLED}::test_a_source_is_built_under_the_charts_own_rights_and_policies",
            f"{CLUSTER.format('upgrade')}::test_an_upgrade_fails_no_request_and_loses_no_session",
        ),
    ),
    "T18": Row(
        "a flood is refused early: per key, per address, per process",
        (
            f"{HTTP.format('limits')}::test_a_key_over_its_rate_gets_a_429",
            f"{HTTP.format('limits')}::test_a_key_over_its_concurrency_gets_a_429_and_its_place_back",
            f"{HTTP.format('limits')}::test_requests_over_the_limit_of_the_process_get_a_503",
            f"{USAGE}::test_a_minutes_requests_are_refused_with_a_time_and_the_refusal_is_not_recorded",
            f"{USAGE}::test_tokens_of_a_minute_and_of_a_turn_are_bounded",
        ),
    ),
    "T19": Row(
        "defaults fail closed",
        (
            "unit/gateway/test_settings.py::test_a_bare_start_fails_and_names_what_is_missing",
            "unit/gateway_auth/test_auth.py::test_without_a_key_only_programs_of_this_machine_in_dev_are_let_in",
            _NO_SETTING,
            f"{_CHART}::test_every_secret_is_made_anew_for_every_installation",
            f"{_CHART}::test_what_cannot_work_is_refused_with_a_sentence",
        ),
        lacking="TLS: a gateway serves plain HTTP on whatever address it is given",
    ),
    "T20": Row(
        "dependencies are hash-locked; images install from their lock, run unprivileged and say what they hold",
        (
            f"{PACKAGING.format('lock')}::test_every_pin_has_hashes_and_nothing_else_stands_in_the_lock",
            f"{PACKAGING.format('images')}::test_an_image_has_a_given_base_locked_packages_and_an_unprivileged_user",
            f"{PACKAGING.format('images')}::test_an_image_says_what_it_holds_in_the_same_bytes_each_time",
        ),
        lacking="a digest of the base image, which who builds gives; the list holds Python packages alone",
    ),
    "T21": Row(
        "no forged log lines, no content or secrets in traces and logs",
        (
            f"{CONTROL.format('audit')}::test_no_field_can_start_a_new_line_or_grow_without_bound",
            f"{EGRESS.format('proxy')}::test_a_refused_target_is_logged_in_one_line_without_the_token",
            f"{JOURNEY.format('keys_and_audit')}::test_the_audit_log_tells_who_did_what_without_content",
        ),
    ),
    "R2": Row(
        "random schedules of faults, model-based: no violation",
        (f"{SIM}::test_no_promise_is_broken_under_random_faults", f"{SIM}::test_each_rule_taken_out_is_noticed"),
        lacking="2,000 schedules a change of the 5,000; 100,000 with --long",
    ),
    "R3": Row(
        "a part gets SIGTERM: of 400 calls none fails",
        (PROBED, f"{API.format('operator')}::test_another_operator_goes_on_when_the_holder_ends"),
        lacking="400 calls go through the end of a gateway alone; the stock client's own two repeats count as one call",
    ),
    "R4": Row(
        "a gateway gets SIGKILL: of 400 calls none fails",
        (PROBED,),
        lacking="the stock client's own two repeats count as one call",
    ),
    "R5": Row(
        "Redis lost: no misroute", (f"{SIM}::test_no_promise_is_broken_under_random_faults",), lacking="F17's figures"
    ),
    "R7": Row(
        "no duplicate sandbox in races",
        (f"{CONTROL.format('sessions')}::test_a_thousand_races_for_one_name_make_one_session",),
        lacking="100,000 claim races",
    ),
    "R9": Row(
        "no byte of an acknowledged checkpoint is lost",
        (
            f"{JOURNEY.format('checkpoints')}::test_an_archived_session_wakes_on_a_fresh_volume_with_its_files",
            f"{JOURNEY.format('checkpoints')}::test_its_files_come_back_though_redis_was_emptied_meanwhile",
            f"{JOURNEY.format('checkpoints')}::test_a_damaged_checkpoint_gives_way_to_the_one_before_and_none_left_is_said",
            f"{CLUSTER.format('sleeping')}::test_an_idle_session_leaves_no_pod_then_no_claim_and_wakes_with_its_files_each_time",
        ),
        lacking="a node that is lost with its volumes",
    ),
    "R10": Row(
        "stream integrity under kills",
        (f"{CRASH.format('sandbox')}::test_a_killed_sandbox_is_not_noticed",),
        lacking="50 kills a change of the 1,000; the full matrix with --long",
    ),
    "S1": Row(
        "no answer across tenants: all routes, roles, id forms",
        (
            f"{TENANCY.format('control_routes')}::test_every_route_is_judged",
            f"{TENANCY.format('data_routes')}::test_a_foreign_response_is_told_from_an_unknown_one_by_nothing_in_the_answer",
        ),
    ),
    "S2": Row(
        "no byte out over any technique",
        (
            f"{EGRESS.format('rules')}::test_any_bytes_are_a_request_or_refused",
            f"{HOSTILE.format('ways_out')}::test_no_byte_gets_out",
            f"{HOSTILE.format('ways_out')}::test_there_are_enough_of_them",
            f"{HOSTILE.format('ways_out')}::test_what_is_listed_is_reached_in_the_same_way",
            f"{HOSTILE.format('reach')}::test_no_other_host_is_reached_by_address",
        ),
    ),
    "S3": Row(
        "no address form passes, wherever a URL or a host is taken, nor after a redirect, nor when a name rebinds",
        (
            f"{EGRESS.format('addresses')}::test_the_proxy_reaches_no_form_of_an_address_though_it_is_listed",
            f"{EGRESS.format('addresses')}::test_the_proxy_reaches_no_address_that_a_listed_name_resolves_to",
            f"{EGRESS.format('addresses')}::test_a_name_that_rebinds_changes_nothing_for_the_proxy",
            f"{EGRESS.format('addresses')}::test_a_build_reaches_no_form_of_an_address_that_a_manifest_names",
            f"{EGRESS.format('addresses')}::test_no_form_of_an_address_is_dialled",
            f"{EGRESS.format('addresses')}::test_nothing_is_dialled_that_a_name_resolves_to",
            f"{EGRESS.format('addresses')}::test_a_name_that_rebinds_is_judged_each_time_it_is_dialled",
            f"{EGRESS.format('addresses')}::test_a_redirect_leads_nowhere",
            f"{EGRESS.format('rules')}::test_the_lists_hold_enough_forms",
            f"{EGRESS.format('rules')}::test_no_ipv4_address_passes_inside_an_ipv6_one",
        ),
    ),
    "S4": Row(
        "no disagreement over framing",
        (
            f"{HTTP.format('smuggling')}::test_there_are_at_least_sixty_vectors",
            "unit/gateway/test_framing.py::test_an_arbitrary_head_is_refused_unless_it_is_of_the_grammar",
        ),
        lacking="10^6 fuzz cases",
    ),
    "S6": Row(
        "no archive escapes",
        ("unit/kinds/test_bundles.py::test_a_hostile_archive_is_refused_and_the_old_tree_stays",),
        lacking="10^6 fuzz cases",
    ),
    "S7": Row(
        "no canary in logs, traces, environment, errors",
        (
            f"{HOSTILE.format('canaries')}::test_no_sink_holds_one",
            f"{HOSTILE.format('canaries')}::test_no_error_that_a_caller_gets_tells_one",
            f"{HOSTILE.format('canaries')}::test_the_search_of_the_sinks_finds_what_is_planted_in_each",
            f"{HOSTILE.format('credentials')}::test_no_credential_lies_in_what_the_platform_keeps_or_prints",
            f"{HOSTILE.format('credentials')}::test_the_search_finds_what_is_there",
            f"{USAGE}::test_calls_are_spans_of_the_turns_trace_with_their_usage_and_without_a_word",
            f"{_APPLIED}::test_an_applied_agent_answers_in_a_pod_of_its_own",
        ),
    ),
    "S8": Row(
        "manifests: checkov without a finding, restricted, no wildcard, default deny both ways",
        (
            f"{PACKAGING.format('chart_scanned')}::test_checkov_finds_nothing_that_is_not_answered_by_a_reason_on_the_object",
            f"{PACKAGING.format('chart')}::test_every_pod_fits_restricted_pod_security",
            f"{PACKAGING.format('chart')}::test_rights_are_named_one_by_one_and_reach_no_shell_and_of_secrets_only_named_ones",
            f"{PACKAGING.format('chart')}::test_every_pod_has_a_policy_for_both_directions",
            f"{API.format('admission')}::test_every_kind_of_pod_is_admitted_where_restricted_pod_security_is_enforced",
        ),
        lacking="pods of agents are judged by a server's restricted admission, and not by checkov",
    ),
    "S9": Row(
        "generated requests: no 500, nothing undocumented",
        (
            f"{CONTROL.format('control_schema')}::test_no_generated_request_gets_a_500_or_an_undocumented_answer",
            "unit/gateway/test_create_body.py::test_any_bytes_are_accepted_or_refused_with_a_400",
        ),
        lacking="the data path has no OpenAPI document",
    ),
    "S10": Row(
        "no start without its secrets",
        (
            "unit/gateway/test_settings.py::test_a_bare_start_fails_and_names_what_is_missing",
            f"{HTTP.format('gateway_process')}::test_a_bad_setting_ends_the_process_and_is_named",
            _NO_SETTING,
        ),
    ),
    "S11": Row(
        "static: bandit, hadolint, mypy and ruff find nothing; hash-locked; images list what they hold",
        (
            f"{PACKAGING.format('static')}::test_bandit_finds_nothing_that_is_not_answered_by_a_reason",
            f"{PACKAGING.format('static')}::test_hadolint_finds_nothing_in_any_dockerfile",
            f"{PACKAGING.format('lock')}::test_every_pin_has_hashes_and_nothing_else_stands_in_the_lock",
            f"{PACKAGING.format('images')}::test_an_image_says_what_it_holds_in_the_same_bytes_each_time",
        ),
        lacking="bandit's findings of low severity (asserts, processes) are not looked at; zizmor has no workflow to read",
    ),
    "S12": Row(
        "every promise names its test or is a known gap",
        (f"{PACKAGING.format('requirements')}::test_every_id_has_exactly_one_place",),
    ),
}
