"""The dashboards. Their metrics are explained in docs/metrics.md, which a test holds them to.

A healthy cluster has data for every query: what counts faults is 0 there, and what has no series
until something happened falls back on vector(0).
"""

import json
import pathlib

from observe import panels as p
from observe.panels import (
    MODEL,
    ROUTER,
    WORKER,
    chart,
    dashboard,
    mean,
    quantile,
    quantiles,
    stat,
    total,
)

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"
ROUTED = f"{ROUTER},{MODEL}"
WORKING = f"{WORKER},{MODEL}"


def or_zero(expr: str) -> str:
    return f"({expr}) or vector(0)"


# --- are promises kept? --------------------------------------------------------------------------


def attainment_panels() -> list[p.Panel]:
    stats = [
        stat(
            f"Attainment, {name}",
            "percentunit",
            f"baton:slo_attainment:ratio{window}",
            "{{class}}",
            good_from=0.99,
        )
        for name, window in [("5 minutes", "5m"), ("1 hour", "1h"), ("3 days", "3d")]
    ]
    return [
        *stats,
        stat(
            "Budget left of 3 days",
            "percentunit",
            "baton:slo_budget_left:ratio3d",
            "{{class}}",
            good_from=0,
            help="Of the requests that may miss by the objective; below 0 there were more.",
        ),
        chart(
            "Attainment, 5 minutes",
            "percentunit",
            ("baton:slo_attainment:ratio5m", "{{class}}"),
            most=1,
            help="Refused and failed requests count as missed, cancelled ones do not count.",
        ),
        chart("Goodput", "reqps", ("baton:slo_goodput:rate5m", "{{class}}"), stacked=True,
              help="Requests that met all their targets."),
        chart(
            "Results",
            "reqps",
            (total("baton_slo_requests_total", by="class, result"), "{{class}}: {{result}}"),
            stacked=True,
        ),
        chart(
            "How fast the budget is spent",
            "none",
            *[
                (f"baton:slo_missed:ratio{w} / baton:slo_error_budget:ratio", "{{class}}, " + w)
                for w in ("5m", "1h", "6h", "3d")
            ],
            help="At 1 it lasts as long as it should. Alerts: 14.4 (1h), 6 (6h), 3 (1d), 1 (3d).",
        ),
        chart("Refused", "reqps", (total("baton_router_refused_total", by="reason"), "{{reason}}"),
              stacked=True),
        chart(
            "Alerts that fire",
            "none",
            (or_zero('count by (alertname) (ALERTS{alertname=~"Baton.*",alertstate="firing"})'),
             "{{alertname}}"),
            stacked=True,
        ),
    ]  # fmt: skip


def latency_panels() -> list[p.Panel]:
    return [
        chart("Time to first token", "s",
              *quantiles("vllm:time_to_first_token_seconds", ROUTED)),
        chart("Between tokens", "s", *quantiles("vllm:inter_token_latency_seconds", ROUTED)),
        chart("Whole request", "s", *quantiles("vllm:e2e_request_latency_seconds", ROUTED)),
        chart(
            "Taken over predicted",
            "none",
            (f'baton_latency_actual_ratio{{{ROUTER},what=~"ttft|tpot"}}', "{{what}}, {{quantile}}"),
            help="Of the last 512 requests, by quantile. Near 1: placement knows what it promises.",
        ),
        chart("In flight", "none",
              (f"sum(vllm:num_requests_running{{{ROUTED}}})", "running"),
              (f"sum(vllm:num_requests_waiting{{{ROUTED}}})", "waiting")),
        chart("Ended", "reqps",
              (total("vllm:request_success_total", ROUTED, "finished_reason"),
               "{{finished_reason}}"),
              stacked=True),
    ]  # fmt: skip


# --- where does time go? -------------------------------------------------------------------------

STAGE = "baton_request_stage_seconds"
FIRST_TOKEN_STAGES = ["parse", "admission", "reserve", "prefill_queue", "prefill", "relay"]
GAP_STAGES = ["parked", "exposed_transfer", "decode_queue", "first_step", "handover_relay",
              "handover_rest"]  # fmt: skip


def stages(names: list[str]) -> str:
    return f'{ROUTED},stage=~"{"|".join(names)}"'


def waterfall_panels() -> list[p.Panel]:
    ttft = "vllm:time_to_first_token_seconds"
    first_tokens = f"scalar({total(ttft + '_count', ROUTED)})"
    share = f"{total(STAGE + '_sum', stages(FIRST_TOKEN_STAGES), 'stage')} / {first_tokens}"
    rest = (f"({total(ttft + '_sum', ROUTED)} - "
            f"{total(STAGE + '_sum', stages(FIRST_TOKEN_STAGES))}) / {first_tokens}")  # fmt: skip
    return [
        chart("To the first token, on average", "s", (share, "{{stage}}"), (rest, "the rest"),
              stacked=True, width=16, height=10,
              help="What each stage has of the mean time to the first token. The rest is what the "
              "router saw and no stage accounts for."),
        chart("To the first token, 95 of 100", "s",
              (quantile(0.95, STAGE, stages(FIRST_TOKEN_STAGES), "stage"), "{{stage}}"), height=10),
        chart("Hand-over, on average", "s", (mean(STAGE, stages(GAP_STAGES), "stage"), "{{stage}}"),
              stacked=True, help="Of requests that were handed over: how long their KV waited for "
              "room, what of its transfer compute did not hide, decode's queue and first step, "
              "the router, and the rest: the commit's and the token's way. With decode workers "
              "that do not tell their stages, these are in the rest."),
        chart("Hand-over, 95 of 100", "s",
              (quantile(0.95, STAGE, stages(GAP_STAGES), "stage"), "{{stage}}")),
        chart("Hand-over, all in all", "s", *quantiles("baton_handover_seconds", ROUTED),
              help="First to second token of requests that were handed over."),
        chart("Time to first token", "s", *quantiles(ttft, ROUTED)),
        chart("Queue of prefill", "s", *quantiles("vllm:request_queue_time_seconds", WORKING),
              help="As workers measure it: a prompt's arrival to its first step."),
        chart("Prefill", "s", *quantiles("vllm:request_prefill_time_seconds", WORKING)),
        chart("Decode", "s", *quantiles("vllm:request_decode_time_seconds", WORKING),
              help="From a request's KV being on the decode worker to its last token."),
    ]  # fmt: skip


# --- how does KV travel? -------------------------------------------------------------------------


def transfer_panels() -> list[p.Panel]:
    def over_transports(metric: str) -> str:
        return total(metric, WORKING, "transport")

    segments_a_read = (f"{over_transports('baton_kv_read_segments_total')} / "
                       f"{over_transports('baton_kv_reads_total')}")  # fmt: skip
    return [
        chart("Bytes read", "Bps", (over_transports("baton_kv_read_bytes_total"), "{{transport}}"),
              stacked=True),
        chart("Reads", "ops", (over_transports("baton_kv_reads_total"), "{{transport}}")),
        chart("Descriptors a read", "none", (segments_a_read, "{{transport}}")),
        chart("Announce to read", "s",
              *quantiles("baton_kv_announce_to_read_seconds", WORKING),
              help="Announce of finished layers to the end of their read."),
        chart("Exposed transfer", "s",
              *quantiles("baton_kv_exposed_transfer_seconds", WORKING),
              help="What compute did not hide: the commit's arrival to the last checked byte."),
        chart("Open hand-offs", "none",
              (f"sum by (role) (baton_kv_handoffs{{{WORKING}}})", "{{role}}"),
              (f"sum(baton_kv_reservations{{{WORKING}}})", "reserved")),
        chart("Hand-offs ended", "ops",
              (total("baton_kv_handoffs_ended_total", WORKING, "role, end"), "{{role}}: {{end}}"),
              stacked=True),
        chart("Read again, or wrong", "ops",
              (over_transports("baton_kv_rereads_total"), "again, {{transport}}"),
              (over_transports("baton_kv_digest_mismatches_total"), "digest, {{transport}}"),
              help="Nothing wrong is used. Many: docs/operations.md, BatonDigestMismatches."),
        chart("Leases that ended", "ops",
              (total("baton_kv_leases_ended_total", WORKING, "of"), "of a silent {{of}}")),
        chart("Parked blocks", "none",
              (f"sum(baton_kv_parked_blocks{{{WORKING}}})", "parked"),
              (f'sum(baton_kv_parked_blocks_limit{{{WORKING}}} and on (job, instance) '
               f'baton_worker_role{{role="prefill"}} == 1)', "at most"),
              help="Of prompts that are computed and that no decode worker has room for."),
        chart("Hand-offs refused", "ops", (total("baton_kv_refused_total", WORKING), "no room")),
        chart("Messages", "ops",
              (total("baton_kv_messages_sent_total", WORKING, "kind"), "{{kind}}"), stacked=True),
        chart("Pairs", "none",
              (f"count by (transport) (baton_kv_peer_up{{{WORKING}}})", "{{transport}}"),
              help="none: workers that this side is read by and does not read."),
        chart("Handed off", "Bps",
              (total("baton_router_handed_off_bytes_total", ROUTER, "transport"), "{{transport}}"),
              help="As routers hear of it."),
        chart("Messages ignored", "ops",
              (total("baton_kv_ignored_messages_total", WORKING), "stale or unknown")),
    ]  # fmt: skip


# --- what do workers do? -------------------------------------------------------------------------


def worker_panels() -> list[p.Panel]:
    hits = (f"{total('vllm:prefix_cache_hits_total', WORKING)} / "
            f"{total('vllm:prefix_cache_queries_total', WORKING)}")  # fmt: skip
    return [
        stat("Workers, by role and state", "none",
             f"max by (role, state) (baton_router_workers{{{ROUTER}}})", "{{role}}, {{state}}",
             width=16),
        stat("Processes that answer", "none", 'sum by (job) (up{job=~".*baton.*"})', "{{job}}",
             width=8),
        chart("Roles", "none",
              (f"sum by (role) (baton_worker_role{{{WORKING}}})", "{{role}}"), stacked=True),
        chart("Running", "none", (f"vllm:num_requests_running{{{WORKING}}}", "{{instance}}")),
        chart("Waiting", "none", (f"vllm:num_requests_waiting{{{WORKING}}}", "{{instance}}")),
        chart("KV cache in use", "percentunit",
              (f"vllm:kv_cache_usage_perc{{{WORKING}}}", "{{instance}}"), most=1),
        chart("KV blocks", "none",
              (f"sum by (state) (baton_kv_blocks{{{WORKING}}})", "{{state}}"), stacked=True),
        chart("Prefix cache", "percentunit", (hits, "tokens found"), most=1),
        chart("Steps", "ops", (total("baton_steps_total", WORKING, "instance"), "{{instance}}")),
        chart("Tokens a step", "none",
              (f"{total('baton_step_rows_total', WORKING, 'instance')} / "
               f"{total('baton_steps_total', WORKING, 'instance')}", "{{instance}}")),
        chart("Steps: taken over predicted", "none",
              (f'baton_latency_actual_ratio{{{WORKER},quantile="0.5"}}', "{{instance}}, {{what}}"),
              help="The median of the last 512."),
        chart("Preemptions", "ops",
              (total("vllm:num_preemptions_total", WORKING, "instance"), "{{instance}}")),
        chart("Processor time", "none",
              ('rate(process_cpu_seconds_total{job=~".*baton.*"}[$__rate_interval])',
               "{{instance}}"), help="Cores in use."),
        chart("Memory", "bytes",
              ('process_resident_memory_bytes{job=~".*baton.*"}', "{{instance}}")),
        chart("Up since", "s",
              ('time() - process_start_time_seconds{job=~".*baton.*"}', "{{instance}}")),
        chart("File descriptors", "none", ('process_open_fds{job=~".*baton.*"}', "{{instance}}")),
        chart("Connections refused", "ops",
              (total("baton_rpc_refused_total", WORKER, "reason"), "{{reason}}")),
        chart("Routers connected", "none", (f"baton_routers{{{WORKER}}}", "{{instance}}")),
    ]  # fmt: skip


# --- is it enough? -------------------------------------------------------------------------------


def capacity_panels() -> list[p.Panel]:
    ready = f'max by (role) (baton_router_workers{{{ROUTER},state="ready"}})'
    desired = f"max by (role) (baton_desired_workers{{{ROUTED}}})"
    ended = total("vllm:request_success_total", ROUTED)
    workers = f'scalar(max(sum by (instance) (baton_router_workers{{{ROUTER},state="ready"}})))'
    return [
        chart("Requests", "reqps", (ended, "ended")),
        chart("Tokens", "none",
              (total("vllm:prompt_tokens_total", ROUTED), "of prompts, a second"),
              (total("vllm:generation_tokens_total", ROUTED), "generated, a second")),
        chart("Tokens a request", "none",
              (f"{total('vllm:prompt_tokens_total', ROUTED)} / {ended}", "of its prompt"),
              (f"{total('vllm:generation_tokens_total', ROUTED)} / {ended}", "generated")),
        chart("KV cache in use, by role", "percentunit",
              (f"avg by (role) (vllm:kv_cache_usage_perc{{{ROUTED}}})", "{{role}}"), most=1),
        chart("Workers ready", "none", (ready, "{{role}}"), stacked=True),
        chart("Workers desired", "none", (f"({desired}) or ({ready})", "{{role}}"), stacked=True,
              help="What the traffic asks for; where no role may change, those that are ready."),
        chart("Goodput a worker", "reqps",
              (f"sum(baton:slo_goodput:rate5m) / {workers}", "met, a worker")),
        chart("Waiting in routers", "none",
              (f"sum by (instance) (vllm:num_requests_waiting{{{ROUTED}}})", "{{instance}}")),
        chart("Refused for want of room or time", "reqps",
              (total("baton_router_refused_total", 'reason=~"overloaded|slo_.*"', "reason"),
               "{{reason}}"), stacked=True),
        chart("Workers had no room", "ops",
              (total("baton_router_worker_refusals_total", ROUTER), "refusals")),
        chart("Done again", "ops",
              (total("baton_router_retries_total", ROUTER), "placed again"),
              (total("baton_router_retargets_total", ROUTER), "read by another"),
              (total("baton_router_resumes_total", ROUTER), "resumed in mid-answer"),
              (total("baton_router_preemptions_total", ROUTER), "given up by decode")),
        chart("Clients cut off", "ops",
              (total("baton_router_cut_off_total", ROUTER, "reason"), "{{reason}}")),
        chart("Role changes", "ops",
              (or_zero(total("baton_role_flips_total", ROUTER, "from, to")), "{{from}} to {{to}}")),
        chart("Late messages", "ops",
              (total("baton_router_stale_events_total", ROUTER), "dropped"),
              help="Some are normal."),
    ]  # fmt: skip


def all_dashboards() -> dict[str, dict]:
    """By file name."""
    made = {
        "slo": ("Baton: targets", attainment_panels() + latency_panels()),
        "waterfall": ("Baton: where time goes", waterfall_panels()),
        "transfer": ("Baton: KV transfer", transfer_panels()),
        "workers": ("Baton: workers", worker_panels()),
        "capacity": ("Baton: capacity", capacity_panels()),
    }
    return {
        f"{name}.json": dashboard(f"baton-{name}", title, panels)
        for name, (title, panels) in made.items()
    }


def as_text(board: dict) -> str:
    return json.dumps(board, indent=2) + "\n"


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, board in all_dashboards().items():
        (FOLDER / name).write_text(as_text(board))
    return 0
