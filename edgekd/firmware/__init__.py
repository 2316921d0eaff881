"""A quantised ``.tflite`` network as C99 for microcontrollers.

    .tflite ─ tflite ─▶ graph ─ lower ─▶ program ─┬─ arena ─ emit ─▶ C
                                                  └─ reference ─▶ what the C must give

`edgekd.firmware.library` writes the folder that an engineer builds, `edgekd.firmware.cross` proves
it on an emulated Cortex-M.
"""
