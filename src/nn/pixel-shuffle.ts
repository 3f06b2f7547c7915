/** Moves channels into space and back (Shi et al. 2016). */
import { checkWhole } from "../arguments/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkInput, refuseMismatch } from "./inputs.js";
import { Module } from "./module.js";

/** Moves channels into space: [.., C·r², H, W] to [.., C, H·r, W·r]. As `torch.nn.PixelShuffle`. */
export class PixelShuffle extends Module {
  /** r: the output is r times as high and as wide. */
  readonly upscaleFactor: number;

  /** By the factor r. Throws `ERR_OPTION`. */
  constructor(upscaleFactor: number) {
    super();
    this.upscaleFactor = checkWhole("PixelShuffle", "upscaleFactor", upscaleFactor, 1);
  }

  /** Shapes: x [.., C·r², H, W], y [.., C, H·r, W·r]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  forward(x: Tensor): Tensor {
    const r = this.upscaleFactor;
    const [C, H, W] = checkInput("PixelShuffle", x).shape.slice(-3) as [number, number, number];
    if (x.shape.length < 3 || C % r ** 2 !== 0) refuseMismatch("PixelShuffle", `[.., C·${r ** 2}, H, W]`, x);
    const N = x.shape.slice(0, -3).reduce((n, d) => n * d, 1);
    const parts = x.reshape(N * (C / r ** 2), r, r, H, W).permute(0, 3, 1, 4, 2);
    return parts.reshape([...x.shape.slice(0, -3), C / r ** 2, H * r, W * r]);
  }
}

/** Moves space into channels: [.., C, H·r, W·r] to [.., C·r², H, W]. As `torch.nn.PixelUnshuffle`. */
export class PixelUnshuffle extends Module {
  /** r: the input is r times as high and as wide as the output. */
  readonly downscaleFactor: number;

  /** By the factor r. Throws `ERR_OPTION`. */
  constructor(downscaleFactor: number) {
    super();
    this.downscaleFactor = checkWhole("PixelUnshuffle", "downscaleFactor", downscaleFactor, 1);
  }

  /** Shapes: x [.., C, H·r, W·r], y [.., C·r², H, W]. Throws `ERR_OPTION`, `ERR_SHAPE_MISMATCH`. */
  forward(x: Tensor): Tensor {
    const r = this.downscaleFactor;
    const [C, H, W] = checkInput("PixelUnshuffle", x).shape.slice(-3) as [number, number, number];
    if (x.shape.length < 3 || H % r !== 0 || W % r !== 0)
      refuseMismatch("PixelUnshuffle", `[.., C, H·${r}, W·${r}]`, x);
    const N = x.shape.slice(0, -3).reduce((n, d) => n * d, 1);
    const parts = x.reshape(N * C, H / r, r, W / r, r).permute(0, 2, 4, 1, 3);
    return parts.reshape([...x.shape.slice(0, -3), C * r ** 2, H / r, W / r]);
  }
}
