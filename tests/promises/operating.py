"""Promises of the operator: what it does when it dies, and when the API server, a node or a definition does."""

from __future__ import annotations

from promises.shape import API, CLUSTER, OPERATING, PROVIDER, SHIM, Row

_OPERATOR, _APPLIED, _FAULTS = API.format("operator"), CLUSTER.format("operator"), CLUSTER.format("faults")
_LOST = API.format("lost_nodes")
_WATCH = "component/operating/test_watch.py"
SWEEP = f"{API.format('crash_points')}::test_an_operator_killed_at_any_write_changes_nothing_in_the_end"
FAULTY = f"{API.format('faulty_server')}::test_what_the_api_server_does_to_an_operator_changes_nothing_in_the_end"

ROWS = {
    "F4": Row(
        "operator down: warm sandboxes are claimed, sessions live on, who finds nothing waits for the next; nothing is nobody's",
        (
            f"{_OPERATOR}::test_without_an_operator_what_is_warm_is_claimed_and_who_finds_nothing_waits_for_the_next",
            f"{_FAULTS}::test_a_killed_operator",
            f"{_APPLIED}::test_another_operator_finds_everything_as_it_is",
        ),
        lacking="who waited too long gets a 424 or a `failed` response, and no 503; the 10 s after its return are not measured",
    ),
    "F5": Row(
        "operator killed between any two writes: the same final state",
        (SWEEP,),
        lacking="a sample of the points a change; all with --long",
    ),
    "F6": Row(
        "watch events lost, doubled, out of order: the same final state",
        (
            FAULTY,
            f"{OPERATING.format('observed')}::test_an_older_version_is_passed_over_and_a_namesake_is_not",
            f"{OPERATING.format('observed')}::test_what_is_gone_does_not_come_back_with_an_old_list",
        ),
        lacking="all lost, or a share doubled and reordered by a seed; not each in turn",
    ),
    "F7": Row(
        "an old look ends nothing that is in use, and nothing else of its name",
        (
            f"{OPERATING.format('machine')}::test_an_old_look_ends_no_other_pod_and_no_other_claim_of_the_name",
            f"{OPERATING.format('observed')}::test_an_older_version_is_passed_over_and_a_namesake_is_not",
            "unit/provider/test_sweeping.py::test_a_volume_goes_only_when_no_session_can_ever_have_had_it",
        ),
        lacking="preconditions are of the uid alone, without a version; no server was made to show old versions",
    ),
    "F8": Row(
        "conflicts: done again, and none in the way of a claim",
        (
            FAULTY,
            f"{_WATCH}::test_a_write_that_meets_a_conflict_is_sent_three_times_more_and_one_that_lost_never",
            f"{_OPERATOR}::test_a_claim_asks_nothing_of_the_api_server",
            f"{OPERATING.format('applies')}::test_a_field_of_somebody_else_is_a_conflict_and_a_wrong_one_is_said",
        ),
        lacking="no metric",
    ),
    "F9": Row(
        "a watch that expired: one list, nothing lost, no hot loop",
        (
            FAULTY,
            f"{_WATCH}::test_a_server_that_refuses_lies_or_breaks_off_is_an_error_of_its_own_kind",
            f"{OPERATING.format('watching')}::test_a_version_that_the_server_has_forgotten_begins_with_a_list",
        ),
        lacking="a compacted etcd on a node",
    ),
    "F10": Row(
        "a busy API server (429, 503) costs time and no operator",
        (
            FAULTY,
            f"{OPERATING.format('watching')}::test_a_server_that_does_not_answer_is_asked_again_from_the_same_version",
        ),
        lacking="kopf heeds Retry-After, the operator's own calls wait 0.2 to 5 s whatever it says; no metric of a watch's age; "
        "/healthz fails for a loop that stands still, not for a watch that is silent",
    ),
    "F11": Row(
        "500s, silence, half-open connections: every call has a deadline",
        (
            FAULTY,
            f"{_WATCH}::test_a_call_that_is_not_answered_in_its_time_is_an_error_of_the_same_kind",
            f"{_WATCH}::test_a_server_that_falls_silent_is_left",
            f"{OPERATING.format('lease')}::test_an_api_server_that_hangs_costs_the_lease_before_another_may_take_it",
            f"{_FAULTS}::test_an_api_server_that_is_away_for_a_minute",
        ),
        lacking="a silent watch is left after 100 s, of the 30; no list was made slow",
    ),
    "F12": Row(
        "two operators at once: the Lease decides, and an overlap harms nothing",
        (
            f"{_OPERATOR}::test_another_operator_goes_on_when_the_holder_ends",
            f"{_OPERATOR}::test_a_holder_that_was_stopped_and_goes_on_later_leaves_the_work_to_its_successor",
        ),
        lacking="the holder is stopped at one instant; a pod that it begins in its last moment would stand for up to a minute",
    ),
    "F24": Row(
        "a volume that does not come: a bounded wait, the reason in the status, others unaffected",
        (
            f"{_OPERATOR}::test_an_agent_whose_volumes_never_come_says_so_in_its_time_and_holds_up_no_other",
            f"{OPERATING.format('pods')}::test_the_state_of_a_pod",
        ),
        lacking="the scheduler's words are played; a mount that hangs shows no more than that containers are made; no Multi-Attach",
    ),
    "F25": Row(
        "a node lost: its sessions go on from their last checkpoints elsewhere, no two on one workspace; a slow one changes nothing",
        (
            f"{_LOST}::test_a_session_goes_on_from_its_checkpoint_on_another_node_and_the_one_it_had_may_not",
            f"{_LOST}::test_where_the_node_and_its_volume_are_gone_a_session_without_a_checkpoint_waits_and_one_with_it_moves",
            f"{_LOST}::test_a_node_that_is_back_in_time_changes_nothing",
            "component/files/test_moving.py::test_it_begins_from_its_newest_checkpoint_and_its_former_sandbox_is_refused_at_once",
            "component/files/test_moving.py::test_without_a_checkpoint_that_can_be_read_it_waits_and_callers_are_told",
            f"{OPERATING.format('reach')}::test_a_pod_that_was_told_to_end_is_out_of_reach_its_grace_and_the_setting_later",
        ),
        lacking="nodes are played, on a real API server; no kubelet is stopped, no Node deleted, no volume attached twice",
    ),
    "F39": Row(
        "the definition up- and downgraded: agents and sessions go on, specs stay",
        (
            f"{API.format('other_definitions')}"
            "::test_agents_and_their_sessions_go_through_a_downgrade_and_an_upgrade_of_the_definition",
            f"{API.format('hosted_agent_resource')}::test_what_is_filled_in_is_what_the_kind_itself_says",
            f"{API.format('hosted_agent_resource')}::test_what_is_wrong_is_refused_by_apply_with_the_field",
            f"{CLUSTER.format('upgrade')}::test_an_upgrade_fails_no_request_and_loses_no_session",
        ),
        lacking="the older definition is one of the tests'; a field that it does not know goes when an object is written under it",
    ),
    "F40": Row(
        "an agent or its namespace deleted: what runs ends, what sessions own stays, nothing hangs",
        (
            f"{_APPLIED}::test_a_deleted_agent_leaves_only_what_sessions_own",
            f"{PROVIDER}::test_a_withdrawn_agent_leaves_nothing_running",
            SWEEP,
        ),
        lacking="no turn runs when its agent goes, and no grace is counted; a namespace goes with --long, where no node is",
    ),
    "R1": Row(
        "crash-point sweep: all converge, nobody's is left",
        (
            SWEEP,
            f"{API.format('cycles')}::test_sessions_that_came_and_went_leave_nothing",
            f"{SHIM.format('checkpoints')}::test_a_checkpoint_that_is_refused_at_any_call_is_none_and_the_older_stands",
            "component/checkpoint/test_swapping.py::test_killed_at_any_step_leaves_the_old_trees_or_the_new",
        ),
        lacking="turns have the simulation's; schedulers of routines end at random steps; a sample of the operator's points a change",
    ),
}
