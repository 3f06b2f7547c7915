"""Goldens of Whisper's log-mel features: some frames of each sound, and the mean of all (README.md)."""

import numpy as np
from transformers import WhisperFeatureExtractor

import common
import fill

RATE, WINDOW = 16000, 480000


def seconds(length):
    return np.arange(length) / RATE


def noise(key, length, scale):
    return fill.uniform(f"whisper/{key}/audio", (length,), scale)


def sounds():
    """By name, in float32. `speech.ts` creates the same."""
    t = seconds(5 * RATE)
    click = np.zeros(RATE)
    click[8000] = 1.0
    quiet = noise("quiet", 2 * RATE, 1e-5)
    quiet[:RATE] += 0.9 * np.sin(2 * np.pi * 1000 * seconds(RATE))
    return {
        "sine": 0.5 * np.sin(2 * np.pi * 440 * seconds(2 * RATE)),
        "chirp": 0.7 * np.sin(2 * np.pi * (100 * t + 780 * t * t)),
        "noise": noise("noise", 3 * RATE, 0.8),
        "silence": np.zeros(RATE),
        "click": click,
        "quiet": quiet,
        "short": noise("short", 100, 0.5),
        "one": np.array([0.25]),
        "exact": noise("exact", WINDOW, 0.3) * np.linspace(0, 1, WINDOW),
        "longer": noise("longer", WINDOW + 3 * RATE, 0.3),
    }


def frames_of(length):
    """Both ends of the window and of the sound, and every 300th."""
    end = min(length, WINDOW) // 160
    edges = {0, 1, 2, 2997, 2998, 2999} | {end + i for i in range(-2, 3)}
    return sorted(f for f in edges | set(range(50, 3000, 300)) if 0 <= f < 3000)


def main():
    tensors, cases = {}, []
    for mels in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=mels)
        for name, sound in sounds().items():
            if mels == 128 and name not in ("chirp", "noise", "quiet"):
                continue
            sound = sound.astype(np.float32)
            padded = np.zeros(WINDOW, np.float32)
            padded[: len(sound)] = sound[:WINDOW]
            # In float64 except for the result; users of transformers get torch's float32.
            features = extractor._np_extract_fbank_features(padded[None], "cpu")[0]
            given = extractor(sound, sampling_rate=RATE, return_tensors="np").input_features[0]
            assert features.shape == given.shape == (mels, 3000)
            error = np.abs(features - given).max()
            print(f"{mels} {name}: torch in float32 differs by {error:.1e}")
            frames = frames_of(len(sound))
            tensors[f"{name}.{mels}"] = features[:, frames]
            cases.append({"name": name, "mels": mels, "frames": frames, "mean": float(features.astype(np.float64).mean())})
    common.write_tensors(common.GOLDENS / "whisper_features.safetensors", tensors)
    common.write_json(common.GOLDENS / "whisper_features.json", {"versions": common.versions(), "cases": cases})


if __name__ == "__main__":
    main()
