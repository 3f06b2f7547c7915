"""Writes goldens/tfevents.bin with TensorBoard's own protocol buffers and record writer (pip install tensorboard)."""
import io
import pathlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

out = io.BytesIO()
writer = RecordWriter(out)
write = lambda event: writer.write(event.SerializeToString())
value = lambda tag, number: Summary.Value(tag=tag, simple_value=number)

write(Event(wall_time=1795780800.25, file_version="brain.Event:2"))
write(Event(wall_time=1795780800.25, session_log=SessionLog(status=SessionLog.START)))
write(Event(wall_time=1795780801.5, summary=Summary(value=[value("eval/loss", 4.5), value("eval/perplexity", 90.0171313005)])))
for step in (1, 127, 128, 300, 2**40):
    write(Event(wall_time=1795780802.125, step=step, summary=Summary(value=[
        value("train/loss", 1 / step), value("train/learning_rate", 2e-4), value("train/grad_norm", 0.3),
        value("train/tokens_per_second", 14899.25), value("train/memory_bytes", 3e9)])))
write(Event(wall_time=1795780803.0, step=300, summary=Summary(value=[
    value("eval/loss", 0.25), value("eval/perplexity", 1.2840254167), value("eval/accuracy", 0.875), value("eval/macro_f1", 0.5)])))
(pathlib.Path(__file__).parent / "goldens" / "tfevents.bin").write_bytes(out.getvalue())
