"""Promises about faults (F), and the tests that prove them. Data; see `requirements.py`."""

from __future__ import annotations

from promises.shape import (
    API,
    BOUNDARY,
    CALLS,
    CLUSTER,
    CONTROL,
    CRASH,
    EGRESS,
    HOSTILE,
    HTTP,
    JOURNEY,
    PLATFORM,
    PROBED,
    PROVIDER,
    SHIM,
    SIM,
    STORE,
    TENANCY,
    TOOLS,
    Row,
)

_FAULTS, _APPLIED = (CLUSTER.format(name) for name in ("faults", "operator"))
_SANDBOX, _GATEWAY, _REDIS = (CRASH.format(name) for name in ("sandbox", "gateway", "redis"))

ROWS: dict[str, Row] = {
    "F1": Row(
        "a sandbox killed mid-stream: the same stream goes on, nothing repeated; attempts used up: a useful failure",
        (
            f"{_SANDBOX}::test_a_killed_sandbox_is_not_noticed",
            f"{JOURNEY.format('turns')}::test_an_agent_that_crashes_twice_at_one_point_fails_with_its_last_lines",
            "unit/turns_normalise/test_later_attempts.py::test_the_same_answer_in_any_chunks_repeats_no_character",
            f"{JOURNEY.format('models')}::test_a_killed_sandbox_asks_no_completed_question_twice",
            f"{JOURNEY.format('models')}::test_a_stream_that_was_half_told_goes_on_where_it_stopped",
            f"{JOURNEY.format('frameworks')}::test_a_killed_sandbox_is_not_seen_and_each_attempt_starts_from_what_the_first_found",
            f"{CALLS}::test_the_next_attempt_gets_the_recorded_answers_in_order_and_asks_nothing_twice",
            f"{CALLS}::test_a_call_whose_sandbox_died_is_finished_and_recorded_once",
            f"{BOUNDARY}::test_a_few_points_of_every_kind",
            f"{BOUNDARY}::test_no_killed_sandbox_makes_an_effect_happen_twice",
            f"{JOURNEY.format('steps')}::test_what_was_done_is_done_once_in_every_way_of_calling",
            f"{JOURNEY.format('steps')}::test_one_that_was_cut_off_is_not_known_and_told_so",
            f"{JOURNEY.format('steps')}::test_one_that_asks_otherwise_in_a_later_attempt_is_turned_away_once",
            f"{JOURNEY.format('tools')}::test_a_killed_sandbox_runs_no_tool_twice",
            f"{JOURNEY.format('tools')}::test_a_gateway_that_dies_leaves_an_unknown_outcome_and_the_agent_goes_on",
            f"{TOOLS}::test_a_tool_is_run_once_and_met_again_by_a_later_attempt_under_another_id",
            f"{TOOLS}::test_a_gateway_that_ends_during_an_effect_leaves_an_unknown_outcome",
            f"{JOURNEY.format('frameworks')}::test_a_tool_that_a_crash_fell_into_is_told_as_unknown_and_not_run_again",
            f"{JOURNEY.format('frameworks')}::test_an_agent_that_asks_otherwise_the_second_time_is_told_what_was_done",
            f"{JOURNEY.format('framework_toolboxes')}::test_a_toolboxs_journal_has_what_a_kill_fell_into_and_a_lost_outcome_is_told_as_one",
            f"{JOURNEY.format('framework_toolboxes')}::test_a_step_that_is_asked_otherwise_tells_what_was_done",
            f"{_FAULTS}::test_a_killed_agent_process",
            f"{_FAULTS}::test_a_deleted_pod",
            f"{CLUSTER.format('call_sweep')}::test_no_effect_happens_twice_whatever_dies",
            f"{SHIM.format('leaving')}::test_a_running_turn_is_given_up_and_its_files_are_saved_before_the_pod_ends",
            f"{SIM}::test_no_promise_is_broken_under_random_faults",
        ),
        lacking="calls of sub-agents; what a framework runs inside the sandbox is recorded where it is a step",
    ),
    "F2": Row(
        "a gateway killed: another takes the lease, streams resume by cursor, nothing lost, nothing double",
        (
            f"{_GATEWAY}::test_a_killed_gateway_is_not_noticed_by_who_comes_back",
            f"{JOURNEY.format('models')}::test_a_gateway_that_dies_costs_at_most_the_call_it_carried",
            f"{BOUNDARY}::test_no_killed_gateway_does_and_a_model_is_asked_again_only_where_it_was_being_asked",
            f"{_FAULTS}::test_each_gateway_killed",
            f"{CLUSTER.format('call_sweep')}::test_no_effect_happens_twice_whatever_dies",
            PROBED,
            f"{SIM}::test_no_promise_is_broken_under_random_faults",
        ),
        lacking="one kill under 400 calls, not 50",
    ),
    "F3": Row(
        "a gateway drained: readiness first, then no new work; running streams end or go on elsewhere",
        (
            f"{HTTP.format('limits')}::test_a_draining_gateway_fails_readiness_first_and_then_refuses",
            f"{HTTP.format('limits')}::test_draining_lets_a_running_answer_end_and_closes_idle_connections",
            f"{_GATEWAY}::test_a_draining_gateway_hands_its_turns_over",
            PROBED,
            f"{CLUSTER.format('upgrade')}::test_an_upgrade_fails_no_request_and_loses_no_session",
        ),
        lacking="400 calls go through the end of one gateway; how many go through the rolling update is not counted",
    ),
    "F13": Row(
        "one session or key from two gateways: one sandbox, one turn",
        (
            f"{CONTROL.format('sessions')}::test_a_thousand_races_for_one_name_make_one_session",
            f"{JOURNEY.format('refusals')}::test_the_same_idempotency_key_joins_and_another_body_conflicts_once",
            f"{SIM}::test_no_promise_is_broken_under_random_faults",
        ),
    ),
    "F14": Row(
        "two claims of one warm sandbox: never shared, a second bind is refused",
        (
            f"{SHIM.format('binding')}::test_of_many_sessions_that_bind_at_once_one_wins",
            f"{SHIM.format('binding')}::test_a_second_session_is_refused_for_ever",
            f"{PROVIDER}::test_a_bound_sandbox_refuses_another_session_and_a_lower_epoch",
            f"{SIM}::test_each_rule_taken_out_is_noticed",
        ),
    ),
    "F15": Row(
        "a warm sandbox dies before it is bound: one more claim, never an unready one",
        (
            f"{PROVIDER}::test_a_session_whose_sandbox_died_before_it_was_bound_starts_anew",
            f"{HTTP.format('invocations')}::test_a_sandbox_that_does_not_listen_is_reported_and_another_tried",
        ),
    ),
    "F16": Row(
        "a pool drained: a cold start at once, refilled afterwards",
        (
            f"{PROVIDER}::test_an_empty_pool_makes_a_sandbox_for_the_session",
            f"{PROVIDER}::test_a_claimed_sandbox_is_replaced_in_the_pool",
            "unit/provider/test_decide.py::test_a_pool_is_brought_to_what_is_wanted",
        ),
        lacking="429 with an honest time at capacity: this machine's provider has no cap on cold starts",
    ),
    "F17": Row(
        "Redis restarted, away, emptied: streams pause and go on, nothing misrouted, lost turns end failed",
        (
            f"{_REDIS}::test_a_restarted_valkey_is_not_noticed",
            f"{BOUNDARY}::test_no_killed_valkey_does",
            f"{PROVIDER}::test_after_the_ledger_was_emptied_pools_and_workspaces_come_back",
            f"{CONTROL.format('sessions')}::test_after_redis_was_emptied_the_store_says_which_sessions_are_not_new",
            f"{API.format('operator')}::test_a_ledger_that_was_lost_is_made_whole_from_what_the_cluster_holds",
            f"{_FAULTS}::test_a_restarted_valkey",
            f"{_FAULTS}::test_without_valkey_a_new_session_is_told_when_to_come_again",
            f"{SIM}::test_no_promise_is_broken_under_random_faults",
        ),
        lacking="figures for relays and for routes of 1,000 sessions; FLUSHALL under running turns of real gateways",
    ),
    "F18": Row(
        "Redis rolled back: epoch and fence keep a stale route from another's sandbox",
        (
            f"{SIM}::test_no_promise_is_broken_under_random_faults",
            f"{SIM}::test_each_rule_taken_out_is_noticed",
            f"{SHIM.format('binding')}::test_a_lower_epoch_is_refused_and_a_higher_one_taken",
        ),
    ),
    "F19": Row(
        "an address reused by another session: refused, looked up again",
        (
            f"{SHIM.format('binding')}::test_neither_turn_nor_relay_reaches_another_session_or_epoch",
            f"{HTTP.format('invocations')}::test_a_stale_route_is_looked_up_anew_and_the_call_repeated",
        ),
    ),
    "F20": Row(
        "object store down, slow, broken: sessions go on, writes are repeated",
        (
            f"{STORE.format('faults')}::test_a_dead_server_is_unavailable_at_once",
            f"{STORE.format('faults')}::test_a_server_that_never_answers_is_given_up",
            f"{STORE.format('faults')}::test_kills_at_any_instant_leave_a_whole_object",
            f"{CONTROL.format('sessions')}::test_a_store_that_is_down_stops_no_known_or_fresh_session_and_the_record_follows",
            f"{CONTROL.format('audit')}::test_records_wait_while_the_store_is_away_and_are_all_written_in_order",
        ),
        lacking="a turn that ends while the store is down, with real processes",
    ),
    "F21": Row(
        "a crash during a checkpoint or a restore: old or new, never mixed",
        (
            f"{SHIM.format('checkpoints')}::test_a_checkpoint_that_is_refused_at_any_call_is_none_and_the_older_stands",
            f"{SHIM.format('checkpoints')}::test_a_child_that_is_killed_is_told_and_the_next_one_does_it",
            "component/checkpoint/test_swapping.py::test_killed_at_any_step_leaves_the_old_trees_or_the_new",
            "component/files/test_checkpoint_store.py::test_a_checkpoint_whose_parts_are_not_there_is_none",
        ),
    ),
    "F22": Row(
        "a hostile archive: refused whole, the old tree intact",
        (
            "unit/kinds/test_bundles.py::test_a_hostile_archive_is_refused_and_the_old_tree_stays",
            f"{CONTROL.format('bundles')}::test_a_hostile_archive_is_refused_with_its_reason",
            "component/checkpoint/test_hostile.py::test_every_flipped_bit_of_a_pack_is_refused",
            "component/checkpoint/test_hostile.py::test_a_link_that_appears_on_the_way_is_not_followed",
        ),
        lacking="a fuzzer",
    ),
    "F23": Row(
        "a full volume: the agent sees it, shim and gateway work",
        (
            f"{HOSTILE.format('hogs')}::test_a_full_disk_is_noticed_and_the_session_can_be_cleared",
            f"{HOSTILE.format('hogs')}::test_one_file_over_the_quota_is_an_error_in_the_agent",
            f"{SHIM.format('binding')}::test_a_full_volume_takes_no_binding_and_stays_unbound",
            "component/checkpoint/test_round_trip.py::test_a_full_disk_is_an_error_of_restoring_and_none_of_saving",
        ),
    ),
    "F26": Row(
        "out of memory, fork bomb, full disk, spinning: only that session, with the reason",
        (
            f"{HOSTILE.format('hogs')}::test_a_memory_hog_is_killed_and_its_turn_says_so",
            f"{HOSTILE.format('hogs')}::test_a_fork_bomb_stays_in_its_session_and_ends_with_it",
            f"{HOSTILE.format('hogs')}::test_a_spinning_agent_gets_no_more_than_its_share",
            f"{PROVIDER}::test_a_sandbox_over_its_disk_quota_is_ended_with_the_reason",
            f"{_FAULTS}::test_an_agent_killed_for_its_memory",
            f"{_FAULTS}::test_a_container_killed_for_its_memory",
        ),
        lacking="the neighbour's latency figure; in a cluster `resources.pids` is not applied, the kubelet's own bound is",
    ),
    "F27": Row(
        "a sandbox that hangs, leaves zombies, ignores SIGTERM is ended",
        (
            f"{HOSTILE.format('hogs')}::test_an_agent_that_ignores_sigterm_is_ended_all_the_same",
            f"{HOSTILE.format('hogs')}::test_orphans_are_reaped",
            f"{SHIM.format('attempts')}::test_an_agent_that_is_never_done_ends_at_the_deadline",
            f"{JOURNEY.format('turns')}::test_a_turn_past_its_deadline_fails_and_says_which_setting_it_was",
        ),
    ),
    "F28": Row(
        "an agent that crashes in a loop or is never ready: the reason in the first answer, paced restarts",
        (
            f"{PROVIDER}::test_a_broken_agent_shows_its_last_lines_and_harms_no_other",
            f"{PLATFORM}::test_a_broken_agent_is_listed_with_its_reason_and_the_others_serve",
            "unit/provider/test_decide.py::test_the_pause_after_failures_doubles_and_has_an_end",
            f"{SHIM.format('attempts')}::test_an_agent_that_never_says_ready_is_given_up",
            f"{_APPLIED}::test_an_image_that_is_not_there_is_named",
            f"{_APPLIED}::test_a_broken_agent_says_why_and_the_old_revision_goes_on",
        ),
    ),
    "F29": Row(
        "clocks that differ or jump: time is Redis' or monotonic, and tokens have little leeway",
        (
            f"{SIM}::test_no_promise_is_broken_under_random_faults",
            "unit/gateway/test_pod_tokens.py::test_a_token_holds_from_its_begin_to_its_end_and_a_little_beyond",
            "unit/operating/test_lease.py::test_a_lease_is_taken_only_from_nobody_or_the_silent",
        ),
        lacking="Redis' clock jumps, in the simulation; no process ran under a shifted one",
    ),
    "F30": Row(
        "a scheduler that is down when a routine is due: caught up by policy, exactly one run a due time",
        (
            "component/routines/test_slots_once.py::test_three_schedulers_killed_at_random_and_a_restarted_valkey_run_500_slots_once",
            "component/routines/test_slots_of_policies.py::test_each_due_time_is_accounted_for_once_whatever_the_policies",
            "unit/routines/test_deciding.py::test_due_times_of_an_absence",
            "unit/routines/test_deciding.py::test_a_clock_that_jumps_back_runs_nothing_twice",
            f"{JOURNEY.format('routines')}::test_a_due_time_is_run_once_and_its_response_is_read_like_any_other",
            f"{JOURNEY.format('routines')}::test_due_times_that_passed_while_the_platform_was_down",
            f"{JOURNEY.format('routines')}::test_a_due_time_that_passed_before_anybody_knew_of_it_is_run_or_named_as_missed",
        ),
    ),
    "F31": Row(
        "a routine killed in the middle of a long run: it goes on from where it died, and no step that was recorded runs twice",
        (
            "crash/test_routine_kills.py::test_a_run_of_thirty_steps_goes_on_from_where_it_died",
            f"{JOURNEY.format('routines')}::test_a_crash_is_the_same_turn_and_no_failure",
            f"{JOURNEY.format('routines')}::test_what_a_step_of_a_failed_try_has_done_is_not_done_again_by_the_next",
        ),
    ),
    "F32": Row(
        "a poison request: bounded attempts, a useful error, others untouched",
        (f"{JOURNEY.format('turns')}::test_an_agent_that_crashes_twice_at_one_point_fails_with_its_last_lines",),
    ),
    "F33": Row(
        "slow senders and slow readers: deadlines, bounded buffers, back-pressure",
        (
            f"{HTTP.format('limits')}::test_a_head_that_comes_too_slowly_is_a_408",
            f"{HTTP.format('limits')}::test_a_body_that_comes_too_slowly_is_a_408",
            f"{HTTP.format('limits')}::test_a_slow_reader_holds_a_bounded_buffer_and_is_cut_off",
            f"{HTTP.format('limits')}::test_one_address_cannot_take_all_connections",
        ),
    ),
    "F34": Row(
        "oversize bodies, headers, depth, lines: refused before more than the limit is held",
        (
            f"{HTTP.format('limits')}::test_ten_gigabytes_of_chunks_are_refused_at_the_limit_with_flat_memory",
            f"{HTTP.format('limits')}::test_a_head_over_the_limit_is_a_431_before_it_is_complete",
            "unit/gateway/test_create_body.py::test_nesting_is_measured_exactly",
            f"{SHIM.format('attempts')}::test_an_event_over_the_limit_ends_the_attempt",
        ),
    ),
    "F35": Row(
        "a caller leaves: its turn goes on; a relay is cancelled within a second; nothing leaks",
        (
            f"{JOURNEY.format('turns')}::test_a_turn_goes_on_when_its_caller_has_left",
            f"{HTTP.format('invocations')}::test_a_caller_that_leaves_cancels_the_call_within_a_second",
            f"{HTTP.format('limits')}::test_thousands_of_connects_and_leaves_leave_nothing_behind",
        ),
    ),
    "F36": Row(
        "many callers of one idle session: one wake; a retry joins its turn and no other",
        (
            f"{JOURNEY.format('refusals')}::test_the_clients_own_repeat_joins_the_turn_that_its_cut_connection_began",
            f"{JOURNEY.format('refusals')}::test_a_repeat_after_the_whole_answer_was_given_is_a_turn_of_its_own",
            f"{JOURNEY.format('turns')}::test_a_full_queue_is_a_429_that_says_when_to_come_back",
        ),
        lacking="500 requests to one idle session",
    ),
    "F37": Row(
        "a tool server that hangs, lies or sends too much: deadline, bound, breaker; each named to the agent as a tool's error",
        (
            f"{TOOLS}::test_a_server_that_hangs_costs_its_deadline_and_no_second_run",
            f"{TOOLS}::test_ten_megabytes_are_cut_off_and_said",
            f"{TOOLS}::test_a_bad_answer_is_a_tool_error_that_says_what_was_seen",
            f"{TOOLS}::test_a_server_that_is_not_there_is_named_and_nothing_was_done",
            f"{TOOLS}::test_a_server_left_alone_is_tried_again_after_its_pause",
            f"{TOOLS}::test_definitions_that_are_none_are_left_out_and_the_rest_counts",
            f"{TOOLS}::test_a_server_that_tells_no_list_is_left_out_and_named",
            f"{TOOLS}::test_a_place_that_may_not_be_connected_to_is_refused",
            f"{TOOLS}::test_a_pinned_definition_that_changes_is_held_back_until_it_is_approved",
        ),
    ),
    "F38": Row(
        "a collector down or slow costs spans only",
        (
            "unit/gateway/test_telemetry.py::test_a_failing_collector_costs_spans_and_nothing_else",
            f"{JOURNEY.format('telemetry')}::test_a_collector_that_refuses_costs_spans_and_nothing_else",
        ),
    ),
    "F41": Row(
        "a revoked key ends everywhere within seconds, without a restart",
        (
            f"{TENANCY.format('callers')}::test_a_revoked_key_is_refused_everywhere_within_five_seconds",
            "unit/gateway_auth/test_keys.py::test_a_replica_without_redis_learns_of_a_revocation_in_less_than_five_seconds",
            f"{CALLS}::test_a_key_that_is_missing_or_changed",
            "unit/operating/test_endpoints.py::test_a_changed_key_is_brought_on_and_one_that_is_not_needed_taken_away",
        ),
        lacking="rotation of the token key",
    ),
    "F42": Row(
        "names that fail, lie or rebind: what was checked is what is connected to",
        (
            f"{EGRESS.format('proxy')}::test_what_was_checked_is_what_is_connected_to",
            f"{EGRESS.format('proxy')}::test_a_listed_name_that_resolves_inside_is_refused_at_connect_time",
            f"{EGRESS.format('proxy_bounds')}::test_a_silent_resolver_is_given_up",
            f"{EGRESS.format('addresses')}::test_a_name_that_rebinds_changes_nothing_for_the_proxy",
            f"{EGRESS.format('addresses')}::test_a_name_that_rebinds_is_judged_each_time_it_is_dialled",
        ),
    ),
    "F43": Row(
        "everything killed: what was accepted is there after the next start",
        (
            f"{PLATFORM}::test_a_killed_platform_leaves_nothing_and_the_next_start_is_quick",
            f"{PLATFORM}::test_a_killed_valkey_comes_back_with_everything",
            "component/provider/test_valkey.py::test_what_was_acknowledged_survives_a_kill",
        ),
        lacking="200 sessions at once",
    ),
    "F44": Row(
        "operator and gateways of two versions work together",
        (
            "crash/test_two_ages.py::test_gateways_of_both_ages_carry_one_session",
            "crash/test_two_ages.py::test_a_turn_of_then_is_taken_over_by_a_gateway_of_today",
            "crash/test_two_ages.py::test_a_turn_of_today_is_read_at_a_gateway_of_then",
            f"{API.format('two_ages')}::test_todays_operator_goes_on_with_the_pods_of_the_one_of_then",
            f"{CLUSTER.format('upgrade')}::test_an_upgrade_fails_no_request_and_loses_no_session",
        ),
        lacking="a second release: the older version is a commit, beside today's with --long or on a node alone; nothing is rolled back",
    ),
}
