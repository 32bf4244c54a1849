"""Verifies a plan offline, as docs/formats.md says: python3 verify.py ROOT PLAN [HEAD]. Exit code 0 verified, 4 refused, 2 usage."""
import base64, hashlib, json, re, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
P, EIGHT = 2**255 - 19, 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826  # y of a point of order 8
D, SMALL_ORDER = -121665 * pow(121666, -1, P), {0, 1, P - 1, EIGHT, P - EIGHT}
# Shapes: dict: exactly these fields; list: such items; tuple: one of these; set: one of these values; range: an integer; str: a pattern.
U16, U32, U64, I64, HEX, TEXT = range(2**16), range(2**32), range(2**64), range(-2**63, 2**63), "[0-9a-f]{64}", "(?s:.*)"
NAME, STATE = "[A-Za-z0-9._/:-]{1,128}", ({"kind": {"slots"}, "slots": U32}, {"kind": {"paused", "running"}}, {"kind": {"retried"}, "after": U64, "until": U64})
LIMITS = ({"kind": {"slots"}, "min": U32, "max": U32, "max_step": U32}, {"kind": {"switch"}}, {"kind": {"tasks"}, "most": U32, "within": U64})
ENVELOPE = {"payload": TEXT, "payloadType": TEXT, "signatures": [{"keyid": HEX, "sig": TEXT}]}
FIRST_ROOT = {"v": {1}, "cluster": {"0" * 64}, "epoch": {1}, "prev": {"0" * 64},
              "replicas": [{"keyid": HEX, "ed25519": HEX, "owner": TEXT}], "owners": [{"name": TEXT, "ed25519": HEX}],
              "operators": [{"name": "[A-Za-z0-9._/:@-]{1,64}", "ed25519": HEX, "owner": TEXT}], "owner_threshold": U32, "genesis": HEX, "not_after": U64}
HEAD = {"v": {1}, "shard": U16, "number": U64, "time": U64, "log_size": U64, "log_root": HEX,
        "targets": [{"target": NAME, "seq": U64, "plan": HEX, "mode": {"act", "hold", "revoked"}}]}
VERIFY = {"series": TEXT, "op": {"at_most", "at_least"}, "by": U64, "else": {"finding"}, "value": {"value": I64, "scale": U32, "unit": TEXT}}
PLAN = {"v": {1}, "target": NAME, "seq": U64, "prev": HEX, "issued_at": U64, "not_before": U64, "expires_at": U64, "desired": STATE,
        "preconditions": {"state": STATE}, "limits": LIMITS, "verify": VERIFY, "rollback": STATE, "evidence": HEX, "policy": HEX,
        "on_stale": {"hold", "rollback"}, "risk": {"low", "medium", "high"}, "reason": {"threshold", "absence", "capacity"}}
def need(holds, why):
    if not holds: raise ValueError(why)
def fits(value, shape):
    if isinstance(shape, dict): return isinstance(value, dict) and value.keys() == shape.keys() and all(fits(value[k], shape[k]) for k in shape)
    if isinstance(shape, list): return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, tuple): return any(fits(value, one) for one in shape)
    if isinstance(shape, str): return isinstance(value, str) and re.fullmatch(shape, value) and value.encode() is not None
    if isinstance(shape, range): return type(value) is int and value in shape  # a text would be looked for one number at a time
    return type(value) in ((str, int) if isinstance(shape, set) else (int,)) and value in shape
def parse(data, shape, what):
    def once(pairs): return need(len(dict(pairs)) == len(pairs), f"{what}: a field stands twice") or dict(pairs)
    def never(text): raise ValueError(f"{what}: {text} is no integer")
    def integer(text): return never(text) if text == "-0" else int(text)
    value = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_float=never, parse_constant=never, parse_int=integer)
    return need(fits(value, shape), f"{what}: its fields are not those of the format") or value
def unbase64(text):
    return need(base64.b64encode(data := base64.b64decode(text, validate=True)).decode() == text, "base64 is not canonical") or data
def key(raw):
    y = int.from_bytes(raw, "little") % 2**255
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P)  # the curve is -x^2 + y^2 = 1 + D x^2 y^2
    need(y < P and y not in SMALL_ORDER and pow(x_squared, (P - 1) // 2, P) == 1, "a key is no point, weak or not canonical")
    return Ed25519PublicKey.from_public_bytes(raw)
def opened(path, kind):
    data, document_type = open(path, "rb").read(2**20), f"application/vnd.quorate.{kind}.v1+json"
    need(len(data) <= 64 * 1024 // 3 * 4 + 32 * 1024, f"{kind}: too large")
    envelope = parse(data, ENVELOPE, f"{kind}: envelope")
    body, signatures = unbase64(envelope["payload"]), [(one["keyid"], unbase64(one["sig"])) for one in envelope["signatures"]]
    need(envelope["payloadType"] == document_type and len(body) <= 64 * 1024, f"{kind}: too large or of another type")
    return body, signatures, f"DSSEv1 {len(document_type)} {document_type} {len(body)} ".encode() + body
def signed(kind, signatures, message, keys, threshold):
    ids = [keyid for keyid, _ in signatures]
    need(ids == sorted(set(ids)) and set(ids) <= set(keys), f"{kind}: signers are unknown, twice or not in order")
    for keyid, signature in signatures:  # OpenSSL, which does the rest, accepts an R of small order
        need(len(signature) == 64 and int.from_bytes(signature[:32], "little") % 2**255 % P not in SMALL_ORDER, f"{kind}: R has a small order")
        keys[keyid].verify(signature, message)
    need(len(ids) >= threshold >= 1, f"{kind}: {len(ids)} of at least {threshold} signatures")
def main(root_file, plan_file, head_file=None):
    (body, signatures, message), digest = opened(root_file, "root"), lambda data: hashlib.sha256(data).hexdigest()
    root, cluster = parse(body, FIRST_ROOT, "root"), digest(body)
    owners, replicas, operators = ([bytes.fromhex(one["ed25519"]) for one in root[role]] for role in ("owners", "replicas", "operators"))
    names, n = {one["name"] for one in root["owners"]}, len(replicas)
    need(len(set(owners + replicas + operators)) == len(owners) + n + len(operators) and len(names) == len(owners) >= root["owner_threshold"] and n <= 100, "root: a key or name stands twice")
    need(all(one["keyid"] == digest(raw) and one["owner"] in names for one, raw in zip(root["replicas"], replicas)), "root: a wrong keyid or owner")
    need(len({one["name"] for one in root["operators"]}) == len([key(raw) for raw in operators]) <= 64, "root: too many operators, or two of one name")
    need(all(one["owner"] in names for one in root["operators"]), "root: an operator of nobody")
    signed("root", signatures, message, {digest(raw): key(raw) for raw in owners}, root["owner_threshold"])
    keys, quorum = {digest(raw): key(raw) for raw in replicas}, (n + (n - 1) // 3) // 2 + 1
    def certified(path, kind, shape):
        body, signatures, message = opened(path, kind)
        signed(kind, signatures, message, keys, quorum)
        return parse(body, shape | {"cluster": {cluster}, "epoch": {1}}, kind), digest(body), len(signatures)
    plan, plan_digest, count = certified(plan_file, "plan", PLAN)
    need(plan["issued_at"] <= plan["not_before"] <= plan["expires_at"], "plan: its times contradict each other")
    states, limits = (plan["preconditions"]["state"], plan["desired"], plan["rollback"]), plan["limits"]
    kinds = {"slots": {"slots"}, "switch": {"paused", "running"}, "tasks": {"retried"}}[limits["kind"]]
    need(all(one["kind"] in kinds for one in states), "plan: its states are not of one kind")
    (old, new, back), low, high = (one.get("slots", 0) for one in states), limits.get("min", 0), limits.get("max", 0)
    need(low <= new <= high and abs(new - old) <= limits.get("max_step", 0) and (back == old or low <= back <= high), "plan: breaks its limits")
    (old, new, back) = states
    need("within" not in limits or old["until"] <= new["after"] < new["until"] <= new["after"] + limits["within"] and back == old, "plan: breaks its limits")
    if head_file:
        lines = [one for one in certified(head_file, "head", HEAD)[0]["targets"] if one["target"] == plan["target"]]
        need(len(lines) == 1 and (lines[0]["seq"], lines[0]["plan"]) == (plan["seq"], plan_digest), "head: it names another plan")
    print(f"verified: plan {plan['seq']} for {plan['target']}, signed by {count} of {n} replicas ({quorum} needed): {states[0]} -> {states[1]}")
if len(sys.argv) not in (3, 4): sys.exit(2)
try: main(*sys.argv[1:])
except Exception as why: sys.exit(print(f"refused: {why or type(why).__name__}", file=sys.stderr) or 4)  # whatever goes wrong, the answer is no
