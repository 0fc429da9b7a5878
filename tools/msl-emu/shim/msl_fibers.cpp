// Lane scheduling: every thread a fiber, which runs until it meets others at a simdgroup operation or a barrier.
#include "msl_state.h"
#include <cstring>

// ---- context switch (x86-64 SysV): callee-saved registers and the stack pointer ----
#if defined(__x86_64__)
extern "C" void msl_switch(void** save, void* to);
asm(R"(
.text
.globl msl_switch
.type msl_switch,@function
msl_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size msl_switch,.-msl_switch
.section .note.GNU-stack,"",@progbits
.text
)");
#else
#error "add a switch for this processor (or ucontext)"
#endif
namespace mslrt {
static inline void go(Lane* to) {
  Lane* me = cur;
  if (to == me) return;
  cur = to;
  sw++;
  msl_switch(&me->sp, to->sp);
}
void go_main() {
  Lane* me = cur;
  sw++;
  msl_switch(&me->sp, main_sp);
}
static inline void next_or_main(Group* g) {
  uint32_t r = g->runnable;
  if (!r) {
    go_main();
    return;
  }
  uint32_t p = g->pos[cur->l];
  uint32_t hi = p == 31 ? 0 : r & (~0u << (p + 1));
  uint32_t q = __builtin_ctz(hi ? hi : r);
  go(&g->lanes[g->ord[q]]);
}
void lane_main() {
  entry(cur->c);
  Group* g = cur->g;
  cur->st = DONE;
  g->alive &= ~(1u << cur->l);
  g->runnable &= ~(1u << g->pos[cur->l]);
  next_or_main(g);
  __builtin_trap();
}
void fail_lane(Site s, const char* msg) {
  err("%s at %s:%d: %s [%s]", s.what, base(s.file), s.line, msg, where(cur).c_str());
  for (;;) go_main();
}
uint32_t lane() { return cur->l; }
uint32_t active() { return cur->g->alive; }
void* arg(uint32_t i) { return args_[i]; }
void* tgarg(uint32_t i) { return tga[i]; }

void complete(Group* g) {
  uint32_t ph = g->ph & 1;
  Rv r{g->slots[ph], g->result[ph], g->arrived, {}};
  if (g->red) g->red(r);
  g->mask[ph] = g->arrived;
  g->ph++;
  for (int i = 0; i < 32; i++)
    if (g->arrived >> i & 1) {
      g->lanes[i].st = RUN;
      g->runnable |= 1u << g->pos[i];
    }
  g->arrived = 0;
}
static bool same(const Site& a, const Site& b) {
  return a.line == b.line && a.what == b.what && (a.file == b.file || !strcmp(a.file, b.file));
}
Rv rendezvous(const void* v, size_t n, Site s, void (*red)(Rv&)) {
  Lane* L = cur;
  Group* g = L->g;
  uint32_t ph = g->ph & 1;
  if (g->arrived) {
    Lane* o = &g->lanes[__builtin_ctz(g->arrived)];
    if (!same(o->site, s)) {
      err("divergence: lane %u reached %s (%s:%d) while lane %u of the same simdgroup waits at %s (%s:%d) [%s]", L->l,
          s.what, base(s.file), s.line, o->l, o->site.what, base(o->site.file), o->site.line, where(L).c_str());
      for (;;) go_main();
    }
  }
  memcpy(g->slots[ph][L->l], v, n);
  L->site = s;
  g->red = red;
  g->arrived |= 1u << L->l;
  L->st = AT_SIMD;
  g->runnable &= ~(1u << g->pos[L->l]);
  if (g->arrived == g->full) {
    rvn++;
    complete(g);
  } else
    next_or_main(g);
  return {g->slots[ph], g->result[ph], g->mask[ph], s};
}
void converge(Site s) {
  char z = 0;
  rendezvous(&z, 1, s, nullptr);
}
void sg_barrier(uint32_t f, Site s) {
  converge(s); /* the epoch moves once per lane arrival group */
  Group* g = cur->g;
  uint32_t e = g->ph;
  if (f & 1) g->sg_epoch[0] = e;
  if (f & 2) g->sg_epoch[1] = e;
}
void barrier(uint32_t f, Site s) {
  Lane* L = cur;
  Group* g = L->g;
  L->site = s;
  L->st = AT_BAR;
  g->runnable &= ~(1u << g->pos[L->l]);
  if (nbar) { /* all must be at the same barrier */
    for (uint32_t i = 0; i < nl; i++)
      if (lanes[i].st == AT_BAR && &lanes[i] != L) {
        if (!same(lanes[i].site, s)) {
          err("divergent barrier: %s at %s:%d, another thread (%u) waits at %s:%d", where(L).c_str(), base(s.file),
              s.line, i, base(lanes[i].site.file), lanes[i].site.line);
          for (;;) go_main();
        }
        break;
      }
  }
  if (++nbar == nl) {
    nbar = 0;
    if (f & 1) tg_ep[0]++;
    if (f & 2) tg_ep[1]++;
    for (uint32_t i = 0; i < nl; i++) lanes[i].st = RUN;
    for (uint32_t i = 0; i < ng; i++)
      for (int k = 0; k < 32; k++)
        if (groups[i].full >> k & 1) groups[i].runnable |= 1u << groups[i].pos[k];
    return;
  }
  next_or_main(g);
}
void describe_stuck() {
  for (uint32_t i = 0; i < ng; i++) {
    Group& g = groups[i];
    if (g.arrived) {
      std::string miss;
      Lane* o = &g.lanes[__builtin_ctz(g.arrived)];
      uint32_t m = g.full & ~g.arrived;
      Lane* x = &g.lanes[__builtin_ctz(m)];
      err("divergence: simdgroup %u: %d lanes wait at %s (%s:%d) but lane %u %s%s%s:%d (missing mask %08x) "
          "[threadgroup (%u,%u,%u)]",
          i, __builtin_popcount(g.arrived), o->site.what, base(o->site.file), o->site.line, x->l,
          x->st == DONE ? "has returned; last seen " : "waits at ", x->site.what ? x->site.what : "",
          x->site.file ? (std::string(" ") + base(x->site.file)).c_str() : "", x->site.line, m,
          x->c.threadgroup_position_in_grid[0], x->c.threadgroup_position_in_grid[1],
          x->c.threadgroup_position_in_grid[2]);
      return;
    }
  }
  for (uint32_t i = 0; i < nl; i++)
    if (lanes[i].st == AT_BAR) {
      uint32_t d = 0;
      for (uint32_t k = 0; k < nl; k++) d += lanes[k].st == DONE;
      err("divergent barrier: %u threads wait at threadgroup_barrier (%s:%d), %u threads have returned [%s]", nbar,
          base(lanes[i].site.file), lanes[i].site.line, d, where(&lanes[i]).c_str());
      return;
    }
}
}  // namespace mslrt
