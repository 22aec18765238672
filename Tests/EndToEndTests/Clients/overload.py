"""More searches than a worker takes at once, and care in between.

usage: overload.py PORT TOKEN PATIENT ROUNDS IN_FLIGHT_MAX. One HTTP/2 connection. In each round 60 searches are sent in
one piece, and behind them, one after the other, three readings of the patient. Prints as JSON how the searches ended,
and the greatest number of searches that were answered while one reading waited: that is how long the queue in front
of it was.
"""

import json
import socket
import sys

import h2.config
import h2.connection
import h2.events

port, token, patient, rounds, in_flight_max = sys.argv[1:]
rounds, in_flight_max = int(rounds), int(in_flight_max)
connection = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
session.initiate_connection()
session.increment_flow_control_window(1 << 24)
heads, open_streams = {}, set()
result = {"served": 0, "shed": 0, "withoutRetryAfter": 0, "other": [], "care": [], "longestQueue": 0}


def send(path):
    stream = session.get_next_available_stream_id()
    session.send_headers(
        stream,
        [
            (":method", "GET"), (":scheme", "http"), (":authority", "sunrise.localhost"),
            (":path", path), ("authorization", "Bearer " + token),
        ],
        end_stream=True,
    )
    open_streams.add(stream)
    return stream


def flush():
    connection.sendall(session.data_to_send())


def receive(searches):
    """Handles what comes next. Returns how many searches were served in it."""
    served = 0
    data = connection.recv(1 << 16)
    assert data, "the server closed the connection"
    for event in session.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            heads[event.stream_id] = {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            session.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            raise AssertionError(event)
        elif isinstance(event, h2.events.StreamEnded):
            open_streams.discard(event.stream_id)
            if event.stream_id in searches:
                head = heads[event.stream_id]
                if head[":status"] == "200":
                    result["served"] += 1
                    served += 1
                elif head[":status"] == "503":
                    result["shed"] += 1
                    if not 1 <= int(head.get("retry-after", "0")) <= 60:
                        result["withoutRetryAfter"] += 1
                else:
                    result["other"].append(head[":status"])
    flush()
    return served


for _ in range(rounds):
    searches = {send("/v1/patients?limit=200") for _ in range(60)}
    flush()
    for _ in range(3):
        reading = send("/v1/patients/" + patient)
        flush()
        queue = 0
        while reading in open_streams:
            queue += receive(searches)
        result["care"].append(heads[reading][":status"])
        result["longestQueue"] = max(result["longestQueue"], queue)
    while open_streams:
        receive(searches)
print(json.dumps(result))
