//! The scripts that run inside the server, each one atomic.

/// Takes the journal: refused while somebody else holds it.
///
/// Keys: owner, claim. Arguments: token, lease in ms, epoch of the caller's
/// last claim or nothing. A caller that had a claim gets a new one only if
/// nobody else made one in between. A server that has forgotten the claim has
/// gone back in time; what it still holds is for the caller to verify.
pub(super) const CLAIM: &str = r"
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {'locked', owner} end
local epoch = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
local known = tonumber(ARGV[3])
if known and epoch > known then
  local by = redis.call('HGET', KEYS[2], 'by')
  if by and by ~= ARGV[1] then return {'fenced', by} end
end
epoch = string.format('%.0f', math.max(epoch, known or 0) + 1)
redis.call('HSET', KEYS[2], 'epoch', epoch)
redis.call('HSET', KEYS[2], 'by', ARGV[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'claimed', epoch}
";

/// Makes the lease last on, unless the journal was taken by somebody else.
///
/// Keys: owner, claim. Arguments: token, lease in ms.
pub(super) const RENEW: &str = r"
if redis.call('HGET', KEYS[2], 'by') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 'done'
";

/// Ends the lease at once.
///
/// Keys: owner. Arguments: token.
pub(super) const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'done'
";

/// Stores one commit.
///
/// Keys: owner, claim, head, journal, history. Arguments: token, lease in ms,
/// epoch, the head to be replaced or nothing, the new head, how many pages to
/// put, then for each `J` or `H`, sequence number and frame; then for each
/// range to remove `J` or `H`, first and end.
pub(super) const COMMIT: &str = r"
local epoch = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
if epoch > tonumber(ARGV[3]) then
  return {'fenced', redis.call('HGET', KEYS[2], 'by') or 'nobody'}
end
if epoch < tonumber(ARGV[3]) then return {'moved', ''} end
local head = redis.call('GET', KEYS[3]) or ''
if head ~= ARGV[4] then return {'moved', ''} end
local log = {J = KEYS[4], H = KEYS[5]}
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  redis.call('HSET', log[ARGV[at]], ARGV[at + 1], ARGV[at + 2])
  at = at + 3
end
while at <= #ARGV do
  for seq = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]) - 1 do
    redis.call('HDEL', log[ARGV[at]], string.format('%.0f', seq))
  end
  at = at + 3
end
redis.call('SET', KEYS[3], ARGV[5])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'stored', ''}
";
