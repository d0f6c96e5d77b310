-- SPDX-License-Identifier: Apache-2.0
-- The search of RFC 2544 apart from pktgen: `trial(rate)` offers a load and says how it went, in a table with at least
-- `rate`, `lost` and `passed`.

local M = {}

-- Section 26.1: the highest rate that passes, to `resolution`, by bisection; the trial at it, or nil where none passed.
function M.throughput(trial, max_rate, resolution)
    local best = trial(max_rate)
    if best.passed then return best end
    best = nil
    local low, high = 0, max_rate
    while high - low > resolution do
        local result = trial((low + high) / 2)
        if result.passed then
            best, low = result, result.rate
        else
            high = result.rate
        end
    end
    return best
end

-- Section 26.3: from the highest rate down in steps of a tenth of it, until two trials in a row have lost nothing.
function M.frame_loss(trial, max_rate)
    local curve, clean = {}, 0
    for tenth = 10, 1, -1 do
        local result = trial(max_rate * tenth / 10)
        curve[#curve + 1] = result
        clean = result.lost == 0 and not result.short and clean + 1 or 0
        if clean == 2 then break end
    end
    return curve
end

return M
